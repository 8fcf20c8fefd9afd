"""PReLU (He et al., ICCV 2015) for training on a CPU, where its time is that of reading and writing
memory.

Keras's relu(x) - alpha relu(-x) and its gradient take twelve operations over the whole tensor. Here
XLA compiles the forward pass into one operation and the gradient into two; a matrix product sums
over the batch and positions.
"""

from __future__ import annotations

from typing import Any, Callable

from gitloss.backend import Tensor, keras, tf
from gitloss.compilation import COMPILES, compiled
from gitloss.gradients import custom_gradient, sum_of_rows
from gitloss.layers.phase import PhaseLayer


class PReLU(PhaseLayer, keras.layers.PReLU):
    """max(x, 0) + alpha min(x, 0), with one alpha per channel for `shared_axes` [1, 2].

    Arguments and variables are those of Keras's layer. So are the operations, except in training
    with TensorFlow 2 if the phase says that they run on a CPU.
    """

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        is_fast = COMPILES and training and self.phase is not None and self.phase.on_cpu
        if not is_fast or self.shared_axes != [1, 2]:
            return super().call(inputs)
        return _prelu(inputs, tf.convert_to_tensor(self.alpha))


def _compiled(function: Callable) -> Any:
    """`function` of tensors of one type. It computes in float32, which XLA does faster than in
    bfloat16.
    """
    return compiled(
        lambda *tensors: tf.cast(
            function(*(tf.cast(tensor, tf.float32) for tensor in tensors)), tensors[0].dtype
        )
    )


@_compiled
def _outputs(x: Tensor, alpha: Tensor) -> Tensor:
    return tf.nn.relu(x) + alpha * tf.minimum(x, 0.0)


@compiled
def _by_inputs(x: Tensor, alpha: Tensor, upstream: Tensor) -> Tensor:
    negative = tf.where(x < 0, alpha * upstream, tf.zeros_like(x))  # 0 at 0, as Keras's
    return tf.where(x > 0, upstream, negative)


@compiled
def _terms_by_alpha(x: Tensor, upstream: Tensor) -> Tensor:
    return upstream * tf.minimum(x, 0.0)


@custom_gradient
def _prelu(x: Tensor, alpha: Tensor) -> tuple[Tensor, Callable]:
    """x: [batch, height, width, channels], all static; alpha: [1, 1, channels]."""

    def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
        by_alpha = sum_of_rows(tf.reshape(_terms_by_alpha(x, upstream), [-1, x.shape[-1]]))
        return _by_inputs(x, alpha, upstream), tf.reshape(by_alpha, alpha.shape)

    return _outputs(x, alpha), gradient
