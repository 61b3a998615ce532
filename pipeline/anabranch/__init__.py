"""Anabranch: adaptive scatter-gather for Kafka."""
