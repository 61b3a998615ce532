"""How far a partition is, as a commit says it and as a takeover finds it. Pure."""
