"""What keeps a process going: clocks, stages, heartbeats."""
