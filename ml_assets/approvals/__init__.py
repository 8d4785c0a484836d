"""Signed statements of people: who may approve a promotion or waive a gate, and what still counts."""
