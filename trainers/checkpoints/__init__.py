"""Checkpoints, which exist whole or not at all, and the folder of their run."""

from trainers.checkpoints.manifest import FILE, TO_CONTINUE, Checkpoint, read
from trainers.checkpoints.restoring import (
    find,
    options_of,
    restore,
    restore_shards,
    run_of,
    session_of,
    spec_of,
    using,
    value,
    variables,
)
from trainers.checkpoints.saver import Saver
from trainers.checkpoints.store import CheckpointStore

__all__ = [
    'FILE',
    'TO_CONTINUE',
    'Checkpoint',
    'CheckpointStore',
    'Saver',
    'find',
    'options_of',
    'read',
    'restore',
    'restore_shards',
    'run_of',
    'session_of',
    'spec_of',
    'using',
    'value',
    'variables',
]
