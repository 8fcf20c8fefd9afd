"""Checkpoints at each measurement."""

from __future__ import annotations

from typing import Any

from callbacks.base import Callback
from gitloss.errors import log


class Checkpoint(Callback):
    """Saves at each measurement.

    It is the last callback with a state in the list, so that a checkpoint contains the states after
    the measurement. On a full disk this checkpoint is lost, and the training continues: earlier
    checkpoints remain, and the next measurement tries again. If the last checkpoint of the run
    cannot be written, the run fails.
    """

    def __init__(self) -> None:
        self._failure: str | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        try:
            # type(): a bool is an instance of int, and a manifest has numbers only.
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
