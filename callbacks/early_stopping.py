"""Ends a training that no longer improves."""

from __future__ import annotations

import numpy as np

from callbacks.keras import KerasCallback
from gitloss.backend import keras
from gitloss.metrics import declaration


class EarlyStopping(KerasCallback):
    """Keras's EarlyStopping, with the better direction from the declaration of the metric.

    Args:
      monitor: name of a declared metric.
      patience: number of successive measurements without an improvement that ends the training.

    Raises:
      ValueError: in `build`, if the metric is not declared.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__(keras.callbacks.EarlyStopping(monitor, patience=patience, mode='min'))

    def build(self) -> None:
        metric = declaration.chosen(self.handle.metrics, self.wrapped.monitor, '--monitor')
        self.wrapped.monitor_op = np.greater if metric.higher_is_better else np.less
        super().build()
