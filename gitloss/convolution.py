"""Gradients of convolutions as convolutions, for TensorFlow 1.15 on a CPU.

There the kernels for the two gradients reach a fifth to a half of the speed of the forward
convolution. The same sums written as forward convolutions reach almost all of it
(benchmarks/step.py). oneDNN in TensorFlow 2.x, GPUs and NPUs have fast gradient kernels, so
`overrides` is empty for them.
"""

from __future__ import annotations

from typing import Any

from gitloss.backend import Tensor, tf

NAME = 'GitlossConv2D'
SMALLEST = 14  # pixels; measured


def overrides(device: str) -> dict[str, str]:
    """The argument of `tf.Graph.gradient_override_map` for building a network to train on
    `device`.
    """
    return {'Conv2D': NAME} if device == 'cpu' and tf.__version__.startswith('1.') else {}


@tf.RegisterGradient(NAME)
def _gradient(op: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of y = conv2d(images, kernel): (by images [batch, h, w, in], by kernel [k, k, in,
    out]).
    """
    images, kernel = op.inputs
    height, width, channels, _ = kernel.shape.as_list()
    plain = dict(strides=[1, 1, 1, 1], padding=b'SAME', data_format=b'NHWC', dilations=[1, 1, 1, 1])
    settings = {name: op.get_attr(name) for name in plain}
    if settings != plain or not height % 2 or not width % 2:
        return (
            tf.nn.conv2d_backprop_input(tf.shape(images), kernel, upstream, **settings),
            tf.nn.conv2d_backprop_filter(images, tf.shape(kernel), upstream, **settings),
        )
    # dL/dx[i] = sum_k dL/dy[i - k] W[k]^T: a convolution with the kernel mirrored in space and its
    # channels exchanged.
    mirrored = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
    by_images = tf.nn.conv2d(upstream, mirrored, [1, 1, 1, 1], 'SAME')
    # With few channels the inner matrix product has few rows, and small images gain little:
    # TensorFlow's own kernel is faster.
    sizes = images.shape.as_list()[1:3]
    if channels < 8 or None in sizes or min(sizes) < SMALLEST:
        return by_images, tf.nn.conv2d_backprop_filter(
            images, kernel.shape.as_list(), upstream, [1, 1, 1, 1], 'SAME'
        )
    # dL/dW[k] = sum over batch and positions i of x[i + k] dL/dy[i]. A convolution sums over its
    # channels, this sum is over the batch: batch and channels change places, and dL/dy is the
    # kernel.
    pads = [[0, 0], [height // 2] * 2, [width // 2] * 2, [0, 0]]
    padded = tf.pad(tf.transpose(images, [3, 1, 2, 0]), pads)
    by_kernel = tf.nn.conv2d(padded, tf.transpose(upstream, [1, 2, 0, 3]), [1, 1, 1, 1], 'VALID')
    return by_images, tf.transpose(by_kernel, [1, 2, 0, 3])
