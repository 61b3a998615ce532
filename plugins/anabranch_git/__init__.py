"""Layers over a git repository."""


class Git:
    """Placeholder until the layer's first commit."""
