"""What goes on beside the work."""
