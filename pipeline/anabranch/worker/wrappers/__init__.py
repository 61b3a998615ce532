"""What keeps a layer from hurting the pipeline: a file for each, one list of all."""

from anabranch.worker.wrappers.guard import guard

__all__ = ["guard"]
