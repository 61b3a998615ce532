"""What stands in the topics: events, their bounds, plans and telemetry. No I/O."""
