"""Dropout (Srivastava et al., JMLR 2014) with masks that are a function of seed and step."""

from __future__ import annotations

from typing import Any, Sequence

from gitloss.backend import tf
from gitloss.layers.phase import PhaseLayer


class Dropout(PhaseLayer):
    """Sets a random fraction `rate` of its inputs to 0 in training and scales up the rest.

    Masks do not change when a run is resumed, or with the number of workers.

    Args:
      rate: the fraction, in [0, 1).
      noise_shape: shape of the mask without the batch dimension, 1 where it is broadcast; None: the
        shape of the inputs.

    Raises:
      ValueError: `rate` is outside [0, 1).
    """

    def __init__(
        self, rate: float, noise_shape: Sequence[int] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f'rate: expected a number in [0, 1). Received: {rate!r}')
        self.rate, self.noise_shape = rate, noise_shape

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training or self.phase is None or not self.rate:
            return inputs
        rows, *shape = inputs.shape.as_list()
        mask = self.phase.uniform([rows, *(self.noise_shape or shape)], self.number) >= self.rate
        return inputs * (tf.cast(mask, inputs.dtype) / (1.0 - self.rate))

    def get_config(self) -> dict[str, Any]:
        return dict(super().get_config(), rate=self.rate, noise_shape=self.noise_shape)
