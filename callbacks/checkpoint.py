"""Checkpoints at each measurement."""

from __future__ import annotations

from typing import Any

from callbacks.base import Callback
from gitloss.errors import log


class Checkpoint(Callback):
    """Saves at each measurement.

    It comes last of all callbacks that have a state, so that a checkpoint holds the state that the
    measurement left. A full disk costs this checkpoint, not the training: the ones before stay, and
    the next measurement tries again. If the last one could not be written, the run fails.
    """

    def __init__(self) -> None:
        self._failure: str | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        try:
            # A bool is an int for isinstance, but a manifest takes numbers only.
            self.handle.save(
                {name: logs[name] for name in logs if type(logs[name]) in (int, float)}
            )
            self._failure = None
        except OSError as error:
            self._failure = str(error)
            log.warning('no checkpoint at step %d: %s; the ones before stay', logs['step'], error)

    def on_train_end(self, logs: Any = None) -> None:
        if self._failure:
            raise RuntimeError(f'the last checkpoint could not be written: {self._failure}')
