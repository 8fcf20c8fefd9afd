"""Checkpoints at each measurement."""
from __future__ import annotations

from callbacks.base import Callback, log


class Checkpoint(Callback):
    """Saves at each measurement, last of all callbacks that keep a state, so that the checkpoint holds what they made of it."""

    def on_epoch_end(self, epoch, logs=None):
        path = self.handle.save({name: value for name, value in logs.items() if isinstance(value, (int, float))})
        log.debug('checkpoint %s', path)
