"""Stops a training that has gone wrong, or sends it back."""

from __future__ import annotations

import math
from typing import Any

from callbacks.base import Callback
from gitloss.errors import Diverged

_RATE_FACTOR = 0.5
_MOST_ROLLBACKS = 10


class LossGuard(Callback):
    """Watches every step's loss; first in the list, so that nothing is made of a bad step.

    Args:
      max_loss: a loss above it counts as gone wrong; 0 for no bound.
      rollback: go back to the last checkpoint with half the learning rate, up to ten times a run,
        instead of ending the training.
    """

    def __init__(self, max_loss: float = 0.0, rollback: bool = False) -> None:
        self._max_loss, self._rollback = max_loss, rollback
        self._rollbacks = 0  # of this process: a checkpoint must not bring an older count back

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        is_finite = math.isfinite(logs['loss'])
        if is_finite and not 0 < self._max_loss < logs['loss']:
            return
        expected = f'loss of at most {self._max_loss:g}' if is_finite else 'finite loss'
        losses = [
            f'{name} {value:g}'
            for name, value in logs.items()
            if name.endswith('loss') and isinstance(value, float)  # others may fetch arrays
        ]
        message = f'step {batch}: expected a {expected}. Received: {", ".join(losses)}'
        self._rollbacks += 1
        if self._rollback and self._rollbacks > _MOST_ROLLBACKS:
            message += f'; gone back {_MOST_ROLLBACKS} times already'
        raise Diverged(
            message, _RATE_FACTOR if self._rollback and self._rollbacks <= _MOST_ROLLBACKS else None
        )
