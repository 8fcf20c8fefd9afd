"""The training phase: what layers need from the training step."""

from __future__ import annotations

from typing import Callable, Sequence

from gitloss.backend import keras, tf

# Last parts of the names of weights without weight decay: biases, normalisation, PReLU slopes.
_NOT_DECAYED = ('bias', 'beta', 'gamma', 'alpha')


class Phase:
    """The training step as the layers of a network see it.

    Args:
      seed: of the dropout masks, together with `step`.
      step: int scalar tensor, the number of steps before this one.
      rows: the slice of the global batch that this worker computes.
      batch_size: samples in the global batch.
      gather: [1, ...] of this worker -> [workers, ...] of all workers, with a gradient that sums
        over the workers; None: statistics are over this worker's rows alone.
      on_cpu: the step runs on a CPU; layers may use operations that are fast there.

    Attributes:
      moves: (variable, value after the step) of each moving average. The trainer assigns them: it
        knows what must be read before, and whether the step counts.
    """

    def __init__(
        self,
        seed: int,
        step: tf.Tensor,
        rows: slice,
        batch_size: int,
        gather: Callable[[tf.Tensor], tf.Tensor] | None = None,
        on_cpu: bool = False,
    ) -> None:
        self._seed, self._step, self._rows, self._batch_size = seed, step, rows, batch_size
        self.gather, self.on_cpu = gather, on_cpu
        self.moves: list[tuple[tf.Variable, tf.Tensor]] = []

    def uniform(self, shape: Sequence[int | None], number: int) -> tf.Tensor:
        """Uniform numbers in [0, 1) for this worker's rows: a function of (seed, step, number).

        They are drawn for the global batch, so that masks do not depend on the number of workers.

        Args:
          shape: static shape for this worker's rows; the first size is not read.
          number: the number of the layer.
        """
        seed = tf.stack([self._seed * 1000 + number, tf.cast(self._step, tf.int32)])
        return tf.random.stateless_uniform([self._batch_size, *shape[1:]], seed)[self._rows]


class PhaseLayer(keras.layers.Layer):
    """A layer that differs in training. `enter` sets `phase` and `number`."""

    phase: Phase | None = None
    number = 0


def enter(network: keras.Model, phase: Phase) -> None:
    """Sets the phase of all layers of `network`, also nested ones, for `training=True` calls."""
    layers = [layer for layer in network.submodules if isinstance(layer, PhaseLayer)]
    for number, layer in enumerate(layers, 1):
        layer.phase, layer.number = phase, number


def decayed(variables: Sequence[tf.Variable]) -> list[tf.Variable]:
    """The variables with weight decay: all but biases, normalisation and PReLU slopes."""
    return [
        variable
        for variable in variables
        if variable.name.split(':')[0].split('/')[-1] not in _NOT_DECAYED
    ]
