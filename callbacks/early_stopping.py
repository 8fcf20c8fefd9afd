"""The end of a training that does not improve any more."""

from __future__ import annotations

import numpy as np

from callbacks.keras import KerasCallback
from gitloss.backend import keras
from gitloss.metrics import declaration


class EarlyStopping(KerasCallback):
    """Keras's EarlyStopping; the declaration of its metric tells which direction is better.

    Args:
      monitor: name of a declared metric.
      patience: measurements in a row without an improvement that end the training.

    Raises:
      ValueError: in `build`, if no such metric is declared.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__(keras.callbacks.EarlyStopping(monitor, patience=patience, mode='min'))

    def build(self) -> None:
        metric = declaration.chosen(self.handle.metrics, self.wrapped.monitor, '--monitor')
        if metric.higher_is_better:
            self.wrapped.monitor_op = np.greater
        super().build()
