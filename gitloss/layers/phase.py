"""The training phase: what layers need to know of the step they are part of."""

from __future__ import annotations

from typing import Callable, Sequence

from gitloss.backend import keras, tf

# Weights that weight decay leaves alone: biases, normalisation, PReLU slopes. Ends of their names.
_NOT_DECAYED = ('bias', 'beta', 'gamma', 'alpha')


class Phase:
    """One training step, as the layers of a network see it.

    Args:
      seed: decides the dropout masks, together with `step`.
      step: int scalar tensor, the steps done before this one.
      rows: slice of the global batch that this worker computes.
      batch_size: samples of the global batch.
      gather: [1, ...] of this worker -> [workers, ...] of all of them, with a gradient that sums
        over the workers; None: statistics are those of this worker's rows alone.
    """

    def __init__(
        self,
        seed: int,
        step: tf.Tensor,
        rows: slice,
        batch_size: int,
        gather: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> None:
        self._seed, self._step, self._rows, self._batch_size = seed, step, rows, batch_size
        self.gather = gather
        # (variable, its value after the step): moving averages. Whoever runs the step assigns them,
        # because only there is known what must be read first and whether the step counts.
        self.moves: list[tuple[tf.Variable, tf.Tensor]] = []

    def uniform(self, shape: Sequence[int], number: int) -> tf.Tensor:
        """Uniform numbers in [0, 1) for this worker's rows: a function of (seed, step, number).

        The numbers are drawn for the global batch, so that N workers drop what one would drop.

        Args:
          shape: of this worker's rows, static; 1 in the first place: one draw for all rows.
          number: of the layer that asks.
        """
        seed = tf.stack([self._seed * 1000 + number, tf.cast(self._step, tf.int32)])
        if shape[0] == 1:
            return tf.random.stateless_uniform(shape, seed)
        return tf.random.stateless_uniform([self._batch_size, *shape[1:]], seed)[self._rows]


class PhaseLayer(keras.layers.Layer):
    """A layer that computes something else in training. `phase` and `number` come from `enter`."""

    phase: Phase | None = None
    number = 0


def enter(network: keras.Model, phase: Phase) -> None:
    """Gives all layers of `network`, nested ones too, the phase of its `training=True` calls."""
    layers = [layer for layer in network.submodules if isinstance(layer, PhaseLayer)]
    for number, layer in enumerate(layers, 1):
        layer.phase, layer.number = phase, number


def decayed(variables: Sequence[tf.Variable]) -> list[tf.Variable]:
    """Those of `variables` that decay: all but biases, normalisation and PReLU slopes."""

    def last_part(variable: tf.Variable) -> str:
        return variable.name.split(':')[0].split('/')[-1]

    return [variable for variable in variables if last_part(variable) not in _NOT_DECAYED]
