"""Settings: from files, variables and the command line."""
