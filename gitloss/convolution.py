"""Gradients of convolutions as convolutions, on a CPU.

With TensorFlow 1.15 the kernels for the two gradients reach a fifth to a half of the speed of the
forward convolution. The same sums written as forward convolutions reach almost all of it
(benchmarks/step.py). In float32 oneDNN in TensorFlow 2.x, GPUs and NPUs have fast gradient kernels,
so `overrides` is empty for them; `gitloss.bfloat16` takes `by_kernel` for small images.
"""

from __future__ import annotations

from typing import Any

from gitloss.backend import Tensor, tf

NAME = 'GitlossConv2D'
PLAIN = dict(strides=[1, 1, 1, 1], padding=b'SAME', data_format=b'NHWC', dilations=[1, 1, 1, 1])
SMALLEST = 14  # pixels from which float32 gains by `by_kernel`, and bfloat16 does not; measured


def overrides(device: str) -> dict[str, str]:
    """The argument of `tf.Graph.gradient_override_map` for building a network to train on
    `device`.
    """
    return {'Conv2D': NAME} if device == 'cpu' and tf.__version__.startswith('1.') else {}


def settings_of(op: Any) -> dict[str, Any]:
    """The attributes of a convolution that its gradients take."""
    return {name: op.get_attr(name) for name in PLAIN}


def is_plain(op: Any) -> bool:
    """Whether a convolution has stride 1, an odd kernel and images of the same size before and
    after it.
    """
    height, width = op.inputs[1].shape.as_list()[:2]
    return settings_of(op) == PLAIN and bool(height % 2 and width % 2)


def by_kernel(images: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
    """The gradient of a plain convolution by its kernel [k, k, in, out], as a convolution.

    dL/dW[k] = sum over batch and positions i of x[i + k] dL/dy[i]. A convolution sums over its
    channels, this sum is over the batch: batch and channels change places, and dL/dy is the kernel.
    """
    height, width = kernel.shape.as_list()[:2]
    pads = [[0, 0], [height // 2] * 2, [width // 2] * 2, [0, 0]]
    padded = tf.pad(tf.transpose(images, [3, 1, 2, 0]), pads)
    sums = tf.nn.conv2d(padded, tf.transpose(upstream, [1, 2, 0, 3]), [1, 1, 1, 1], 'VALID')
    return tf.transpose(sums, [1, 2, 0, 3])


@tf.RegisterGradient(NAME)
def _gradient(op: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of y = conv2d(images, kernel): (by images [batch, h, w, in], by kernel [k, k, in,
    out]).
    """
    images, kernel = op.inputs
    height, width, channels, _ = kernel.shape.as_list()
    settings = settings_of(op)
    if not is_plain(op):
        return (
            tf.nn.conv2d_backprop_input(tf.shape(images), kernel, upstream, **settings),
            tf.nn.conv2d_backprop_filter(images, tf.shape(kernel), upstream, **settings),
        )
    # dL/dx[i] = sum_k dL/dy[i - k] W[k]^T: a convolution with the kernel mirrored in space and its
    # channels exchanged.
    mirrored = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
    by_images = tf.nn.conv2d(upstream, mirrored, [1, 1, 1, 1], 'SAME')
    # With few channels the inner matrix product has few rows, small images gain little, and a
    # kernel of 1x1 is one matrix product: TensorFlow's own kernel is faster.
    sizes = images.shape.as_list()[1:3]
    if channels < 8 or None in sizes or min(sizes) < SMALLEST or height == width == 1:
        return by_images, tf.nn.conv2d_backprop_filter(
            images, kernel.shape.as_list(), upstream, [1, 1, 1, 1], 'SAME'
        )
    return by_images, by_kernel(images, kernel, upstream)
