"""Brokers for development and tests: one that needs nothing installed, and the real one."""
