"""Networks that compute in bfloat16 on a CPU, with TensorFlow 2.

The layers of a backbone convert their inputs and weights to bfloat16 and pass bfloat16 on; weights,
their updates and the statistics of batch normalisation stay float32. So do the preprocessing, the
embedding layer, the classifier and the losses: they take little time, and 8 bits of an embedding
are too few for distances.

Some of TensorFlow's gradients are slow in bfloat16. `OVERRIDES` are the same sums by operations
that are fast there (benchmarks/step.py --precision=mixed).
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Iterator

from gitloss import convolution
from gitloss.backend import Tensor, keras, tf
from gitloss.compilation import compiled
from gitloss.gradients import sum_of_rows

# {operation: gradient}, the argument of `tf.Graph.gradient_override_map` for a network that
# computes in bfloat16.
OVERRIDES = {
    'BiasAdd': 'GitlossBiasAddBfloat16',
    'Conv2D': 'GitlossConv2DBfloat16',
    'DepthwiseConv2dNative': 'GitlossDepthwiseBfloat16',
    'Relu': 'GitlossReluBfloat16',
    'Relu6': 'GitlossRelu6Bfloat16',
}
# Features of a processor that multiplies bfloat16: of x86, x86 with tiles, and ARM.
_FEATURES = {'avx512_bf16', 'amx_bf16', 'bf16'}


def in_hardware(cpuinfo: str = '/proc/cpuinfo') -> bool:
    """Whether the processor multiplies bfloat16; False where that is not known."""
    try:
        with open(cpuinfo, encoding='utf-8', errors='replace') as file:
            return any(
                _FEATURES.intersection(line.split())
                for line in file
                if line.lower().startswith(('flags', 'features'))
            )
    except OSError:
        return False


def speedup(config: Any, size: int = 512) -> float:
    """How many times as fast as in float32 the processor multiplies matrices in bfloat16.

    It is measured, because the instruction alone does not tell: some processors have it at half the
    rate of float32, unless they have tiles (AMX), too. Takes 0.05 s.

    Args:
      config: the tf.ConfigProto of the training; the first session of a process sets its threads.
    """
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        products = []
        for kind in (tf.float32, tf.bfloat16):
            ones = tf.get_variable(kind.name, [size, size], kind, tf.ones_initializer())
            products.append(session.make_callable(tf.matmul(ones, ones).op))
        session.run(tf.global_variables_initializer())
        best = [float('inf'), float('inf')]
        for _ in range(6):  # in turns; the first ones also make the kernels
            for index, product in enumerate(products):
                start = time.perf_counter()
                product()
                best[index] = min(best[index], time.perf_counter() - start)
    return best[0] / best[1]


@contextlib.contextmanager
def computing(dtype: str) -> Iterator[None]:
    """A context in which new layers compute in `dtype`, bfloat16 or float32; their variables are
    float32.
    """
    if dtype == 'float32':
        yield
        return
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy('mixed_' + dtype)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


@tf.RegisterGradient(OVERRIDES['BiasAdd'])
def _bias_gradient(op: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
    return upstream, sum_of_rows(tf.reshape(upstream, [-1, op.inputs[1].shape[0]]))


@compiled
def _relu_gradient(outputs: Tensor, upstream: Tensor) -> Tensor:
    return tf.where(outputs > 0, upstream, tf.zeros_like(upstream))


@compiled
def _relu6_gradient(outputs: Tensor, upstream: Tensor) -> Tensor:
    is_linear = tf.logical_and(outputs > 0, outputs < 6)
    return tf.where(is_linear, upstream, tf.zeros_like(upstream))


@tf.RegisterGradient(OVERRIDES['Relu'])
def _gradient_of_relu(op: Any, upstream: Tensor) -> Tensor:
    return _relu_gradient(op.outputs[0], upstream)


@tf.RegisterGradient(OVERRIDES['Relu6'])
def _gradient_of_relu6(op: Any, upstream: Tensor) -> Tensor:
    return _relu6_gradient(op.outputs[0], upstream)


@tf.RegisterGradient(OVERRIDES['Conv2D'])
def _conv_gradient(op: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients by images and kernel. In oneDNN's kernel for the latter every block of channels
    transposes the images again, which costs most where images are small and channels many.
    """
    images, kernel = op.inputs
    settings = convolution.settings_of(op)
    by_images = tf.nn.conv2d_backprop_input(tf.shape(images), kernel, upstream, **settings)
    sizes, kernel_sizes = images.shape.as_list()[1:3], kernel.shape.as_list()[:2]
    is_small = None not in sizes and max(sizes) < convolution.SMALLEST and min(kernel_sizes) > 1
    if is_small and convolution.is_plain(op):
        return by_images, convolution.by_kernel(images, kernel, upstream)
    return by_images, tf.nn.conv2d_backprop_filter(images, tf.shape(kernel), upstream, **settings)


@tf.RegisterGradient(OVERRIDES['DepthwiseConv2dNative'])
def _depthwise_gradient(op: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients by images and by the kernel [k, k, channels, 1].

    oneDNN has no fast kernel in bfloat16 for the former: with stride 1 it is a depthwise
    convolution with the mirrored kernel, else it is computed in float32.
    """
    images, kernel = op.inputs
    settings = convolution.settings_of(op)
    by_kernel = tf.nn.depthwise_conv2d_backprop_filter(
        images, tf.shape(kernel), upstream, **settings
    )
    if convolution.is_plain(op) and kernel.shape[3] == 1:
        mirrored = tf.reverse(kernel, [0, 1])
        return tf.nn.depthwise_conv2d(upstream, mirrored, [1, 1, 1, 1], 'SAME'), by_kernel
    by_images = tf.nn.depthwise_conv2d_backprop_input(
        tf.shape(images), tf.cast(kernel, tf.float32), tf.cast(upstream, tf.float32), **settings
    )
    return tf.cast(by_images, images.dtype), by_kernel
