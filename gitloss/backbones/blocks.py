"""Parts that several networks share."""

from __future__ import annotations

from typing import Any, Callable

from gitloss.backend import Tensor, keras, tf
from gitloss.layers import PReLU


def prelu(x: Tensor, name: str) -> Tensor:
    """PReLU with one slope per channel, initially 0.25 (He et al., ICCV 2015)."""
    start = keras.initializers.Constant(0.25)
    return PReLU(alpha_initializer=start, shared_axes=[1, 2], name=name)(x)


def per_channel(glorot: Any, channels: int) -> Callable:
    """The initialiser of a depthwise kernel, with the seed of `glorot`.

    Each channel is a convolution with one input and one output, whose Glorot variance is 1 / size.
    TensorFlow counts all channels as inputs, and the outputs would be (channels + 1) / 2 times
    smaller in variance, near the epsilon of batch normalisation.
    """
    return tf.variance_scaling_initializer(
        (channels + 1) / 2, mode='fan_avg', distribution='uniform', seed=glorot.seed
    )
