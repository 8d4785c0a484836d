"""Reads a pipeline's description, holds all of it against its files and code, and tells every problem at once."""
