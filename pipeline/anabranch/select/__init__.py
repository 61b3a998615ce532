"""Selection: which strategy answers a query, and why."""
