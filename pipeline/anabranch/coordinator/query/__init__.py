"""The life of a query in a coordinator, without I/O."""
