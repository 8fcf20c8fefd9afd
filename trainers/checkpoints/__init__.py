"""Checkpoints that are whole or not there, and the folder of a run they belong to."""

from trainers.checkpoints.manifest import TO_CONTINUE, Checkpoint, read
from trainers.checkpoints.store import CheckpointStore, Saver, find, restore, variables

__all__ = [
    'TO_CONTINUE',
    'Checkpoint',
    'CheckpointStore',
    'Saver',
    'find',
    'read',
    'restore',
    'variables',
]
