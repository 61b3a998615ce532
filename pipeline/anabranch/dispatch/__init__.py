"""Dispatch: from a query record to tasks. Read, probe, plan, attempt."""
