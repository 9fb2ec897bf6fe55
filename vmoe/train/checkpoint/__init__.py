"""Checkpoints: what a file holds, how it is written and read, and which of them a run keeps."""

from .contents import FORMAT, KEYS, counting_weights
from .file import save_checkpoint
from .source import HUB, read_checkpoint
from .store import CheckpointStore

__all__ = ["FORMAT", "HUB", "KEYS", "CheckpointStore", "counting_weights", "read_checkpoint", "save_checkpoint"]
