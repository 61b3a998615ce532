"""What people see of a running pipeline."""
