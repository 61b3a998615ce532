"""Whose partition it is, and what comes back with it."""
