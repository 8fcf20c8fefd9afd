"""Batch normalisation (Ioffe and Szegedy, ICML 2015) over the global batch of all workers."""

from __future__ import annotations

from typing import Any, Callable

from gitloss.backend import keras, tf
from gitloss.layers.phase import PhaseLayer

_FUSED_EPSILON = 1.001e-5


class BatchNormalization(PhaseLayer, keras.layers.BatchNormalization):
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, over all axes but the last.

    Arguments and variables are those of Keras's layer. In training, mean and variance are those of
    the batch (of all workers if the phase has a `gather`), and the new moving averages are appended
    to `phase.moves` (algorithm 2: with the unbiased variance). In inference, and if `trainable` is
    False, they are the moving averages.

    Raises:
      ValueError: in `build`, for an `axis` that is not the last.
    """

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if list(self.axis) != [len(input_shape) - 1]:
            raise ValueError(
                f'{self.name}: expected batch normalisation over the last axis. '
                f'Received: axis {list(self.axis)}'
            )

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training or self.phase is None or not self.trainable:
            return self._normalised(inputs, self.moving_mean, self.moving_variance)
        # The fused kernel sees one worker only, and raises an epsilon below cuDNN's minimum.
        gather = self.phase.gather
        if gather is None and inputs.shape.rank == 4 and self.epsilon >= _FUSED_EPSILON:
            outputs, mean, unbiased = self._fused(inputs)
        else:
            outputs, mean, unbiased = self._global(inputs, gather)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
            after = moving * self.momentum + tf.stop_gradient(value) * (1.0 - self.momentum)
            self.phase.moves.append((moving, after))
        return outputs

    def _fused(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """(outputs, mean, unbiased variance) from TensorFlow's kernel for images."""
        gamma = tf.ones_like(self.moving_mean) if self.gamma is None else self.gamma
        beta = tf.zeros_like(self.moving_mean) if self.beta is None else self.beta
        return tf.nn.fused_batch_norm(inputs, gamma, beta, epsilon=self.epsilon, is_training=True)

    def _global(
        self, inputs: tf.Tensor, gather: Callable[[tf.Tensor], tf.Tensor] | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The same over the rows of all workers.

        All workers have the same number of rows. The total variance is therefore the mean of the
        workers' variances plus the variance of their means (Chan et al., 1979): one gather per
        layer.
        """
        values = tf.cast(inputs, tf.float32)  # of bfloat16, whose sums are too coarse
        mean, variance = tf.nn.moments(values, list(range(inputs.shape.rank - 1)))
        count, workers = float(inputs.shape[:-1].num_elements()), 1
        if gather is not None:
            moments = gather(tf.stack([mean, variance])[None])  # [workers, 2, channels]
            workers, means = moments.shape.as_list()[0], moments[:, 0]
            mean = tf.reduce_mean(means, axis=0)
            variance = tf.reduce_mean(moments[:, 1] + tf.square(means - mean), axis=0)
        outputs = self._normalised(inputs, mean, variance)
        return outputs, mean, variance * (count * workers / max(count * workers - 1.0, 1.0))

    def _normalised(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        """One product and one sum, which an exporter can fold into the previous layer."""
        return tf.nn.batch_normalization(
            inputs, mean, variance, self.beta, self.gamma, self.epsilon
        )
