"""Drift of columns between two sets of days, from profiles alone: effect, significance, importance, persistence."""
