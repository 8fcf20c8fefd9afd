"""Checkpoints at each measurement."""

from __future__ import annotations

from callbacks.base import Callback
from gitloss.errors import log


class Checkpoint(Callback):
    """Saves at each measurement, last of all callbacks that keep a state, so that the checkpoint
    holds what they made of it.

    A full disk costs this checkpoint, not the training: the ones before stay, and the next
    measurement tries again. If the last one could not be written, the run ends with a failure.
    """

    def __init__(self):
        self._failure = None

    def on_epoch_end(self, epoch, logs=None):
        try:
            self.handle.save(
                {name: value for name, value in logs.items() if isinstance(value, (int, float))}
            )
            self._failure = None
        except OSError as error:
            self._failure = str(error)
            log.warning('no checkpoint at step %d: %s; the ones before stay', logs['step'], error)

    def on_train_end(self, logs=None):
        if self._failure:
            raise RuntimeError(f'the last checkpoint could not be written: {self._failure}')
