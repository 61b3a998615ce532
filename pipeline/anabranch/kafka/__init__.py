"""Kafka: the only place that knows the client library, and the delivery logic on top of it."""
