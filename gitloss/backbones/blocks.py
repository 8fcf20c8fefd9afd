"""Parts that several networks share."""

from __future__ import annotations

from typing import Any, Callable

from gitloss.backend import Tensor, keras, tf
from gitloss.layers import PReLU


def conv(
    x: Tensor,
    filters: int,
    size: Any,
    strides: int,
    initializer: Callable,
    name: str,
    padding: str = 'same',
) -> Tensor:
    """A convolution without bias, which a batch normalisation follows. size: a number, or (height,
    width).
    """
    return keras.layers.Conv2D(
        filters,
        size,
        strides,
        padding=padding,
        use_bias=False,
        kernel_initializer=initializer(),
        name=name,
    )(x)


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
