"""Gradients of convolutions as convolutions, for TensorFlow 1.15 on a CPU.

Its kernels for the two gradients run at a fifth to a half of the rate of its forward convolution;
the same sums written as forward convolutions run at nearly the full one (benchmarks/step.py).
oneDNN in TensorFlow 2.x, GPUs and NPUs have good kernels of their
own: there `overrides` is empty.
"""

from __future__ import annotations

from gitloss.backend import tf

NAME = 'GitlossConv2D'
SMALLEST = 14  # pixels; measured


def overrides(device):
    """What to give to `tf.Graph.gradient_override_map` while the network is built for training on
    `device`.
    """
    return {'Conv2D': NAME} if device == 'cpu' and tf.__version__.startswith('1.') else {}


@tf.RegisterGradient(NAME)
def _gradient(op, upstream):
    """(gradient by images [batch, h, w, in], gradient by kernel [k, k, in, out]) of y =
    conv2d(images, kernel).
    """
    images, kernel = op.inputs
    height, width, channels, _ = kernel.shape.as_list()
    strides, padding, dilations = (
        list(op.get_attr('strides')),
        op.get_attr('padding'),
        list(op.get_attr('dilations')),
    )
    layout = op.get_attr('data_format')
    if not (
        strides == dilations == [1, 1, 1, 1]
        and padding == b'SAME'
        and layout == b'NHWC'
        and height % 2
        and width % 2
    ):
        same = {
            'strides': strides,
            'padding': padding,
            'data_format': layout,
            'dilations': dilations,
        }
        return (
            tf.nn.conv2d_backprop_input(tf.shape(images), kernel, upstream, **same),
            tf.nn.conv2d_backprop_filter(images, tf.shape(kernel), upstream, **same),
        )
    # dL/dx[i] = sum_k dL/dy[i - k] W[k]^T: the kernel mirrored in space, its channels exchanged.
    mirrored = tf.transpose(tf.reverse(kernel, [0, 1]), [0, 1, 3, 2])
    by_images = tf.nn.conv2d(upstream, mirrored, [1, 1, 1, 1], 'SAME')
    # With few channels the matrix product inside has few rows, on small images there is little to
    # win: the kernel made for it is faster.
    sizes = images.shape.as_list()[1:3]
    if channels < 8 or None in sizes or min(sizes) < SMALLEST:
        return by_images, tf.nn.conv2d_backprop_filter(
            images, kernel.shape.as_list(), upstream, strides, 'SAME'
        )
    # dL/dW[k] = sum over batch and places i of x[i + k] dL/dy[i]: the batch is what is summed over
    # as channels are, so
    # channels take the place of the batch and dL/dy that of the kernel.
    rows, columns = height // 2, width // 2
    turned = tf.pad(
        tf.transpose(images, [3, 1, 2, 0]), [[0, 0], [rows, rows], [columns, columns], [0, 0]]
    )
    by_kernel = tf.nn.conv2d(turned, tf.transpose(upstream, [1, 2, 0, 3]), [1, 1, 1, 1], 'VALID')
    return by_images, tf.transpose(by_kernel, [1, 2, 0, 3])
