"""Dropout (Srivastava et al., JMLR 2014) with masks that are a function of seed and step."""

from __future__ import annotations

from typing import Any, Sequence

from gitloss.backend import keras, tf
from gitloss.layers.phase import PhaseLayer


class Dropout(PhaseLayer, keras.layers.Dropout):
    """Sets a random fraction `rate` of its inputs to 0 in training and scales up the rest.

    Masks do not change when a run is resumed, or with the number of workers.

    Args:
      rate: the fraction, in [0, 1).
      noise_shape: shape of the mask, 1 where it is broadcast; every sample has a mask of its own,
        so the first size is not read; None: the shape of the inputs.

    Raises:
      ValueError: `rate` is outside [0, 1).
    """

    def __init__(
        self, rate: float, noise_shape: Sequence[int | None] | None = None, **kwargs: Any
    ) -> None:
        if not 0.0 <= rate < 1.0:
            raise ValueError(f'rate: expected a number in [0, 1). Received: {rate!r}')
        super().__init__(rate, noise_shape, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training or self.phase is None or not self.rate:
            return inputs
        draws = self.phase.uniform(self.noise_shape or inputs.shape.as_list(), self.number)
        return inputs * (tf.cast(draws >= self.rate, inputs.dtype) / (1.0 - self.rate))
