"""The worker. Follow a task: service -> queue -> executor -> wrappers -> layer -> partial."""

from anabranch.worker.service import Worker

__all__ = ["Worker"]
