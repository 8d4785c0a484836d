"""Sharing an installation among teams: whose run starts next, what the others wait for, and what a month costs."""
