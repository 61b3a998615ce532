"""How answers, tasks, dead letters and commits reach the broker."""
