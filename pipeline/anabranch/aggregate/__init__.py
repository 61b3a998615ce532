"""From what the layers said to one answer: join, coverage and merge, all without I/O."""
