"""MobileFaceNet (Chen et al., CCBR 2018, table 1): inverted residual bottlenecks with PReLU, and a
global depthwise convolution in the place of a global average pool.

The last row of the table, a linear 1x1 convolution with batch normalisation, is the embedding layer
with --embedding_norm. Batch normalisation has the settings of the public training code of
insightface, momentum 0.9 and epsilon 1e-3.
"""

from __future__ import annotations

from typing import Callable

from gitloss.backbones.blocks import conv, per_channel, prelu
from gitloss.backend import Tensor, keras
from gitloss.layers import BatchNormalization

# Rows of the table: expansion t, output channels c, repetitions n, stride s of the first one.
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def features(images: Tensor, initializer: Callable) -> Tensor:
    """The 512 features after the global depthwise convolution, whose kernel has the size of the
    last feature map: 7x7 for images of 112 x 112 pixels.
    """
    x = _conv(images, 64, 3, 2, initializer, 'stem')
    x = _depthwise(x, 3, 1, initializer, 'stem_depthwise')
    for row, (expansion, filters, repetitions, strides) in enumerate(BOTTLENECKS, 1):
        for unit in range(1, repetitions + 1):
            name = f'stage{row}/unit{unit}'
            x = _bottleneck(x, expansion, filters, strides, initializer, name)
            strides = 1
    x = _conv(x, 512, 1, 1, initializer, 'wide')
    size = x.shape.as_list()[1:3]
    x = _depthwise(x, size, 1, initializer, 'global', padding='valid', is_linear=True)
    return keras.layers.Flatten(name='flatten')(x)


def _bottleneck(
    x: Tensor, expansion: int, filters: int, strides: int, initializer: Callable, name: str
) -> Tensor:
    """Expanding 1x1 convolution, depthwise 3x3 convolution, linear 1x1 convolution; added to `x`
    where the shapes are equal.
    """
    channels = x.shape.as_list()[-1]
    y = _conv(x, channels * expansion, 1, 1, initializer, f'{name}/expand')
    y = _depthwise(y, 3, strides, initializer, f'{name}/depthwise')
    y = _conv(y, filters, 1, 1, initializer, f'{name}/project', is_linear=True)
    if strides > 1 or channels != filters:
        return y
    return keras.layers.Add(name=f'{name}/sum')([x, y])


def _conv(
    x: Tensor,
    filters: int,
    size: int,
    strides: int,
    initializer: Callable,
    name: str,
    is_linear: bool = False,
) -> Tensor:
    x = conv(x, filters, size, strides, initializer, f'{name}/conv')
    return _normalised(x, name, is_linear)


def _depthwise(
    x: Tensor,
    size: int | list[int],
    strides: int,
    initializer: Callable,
    name: str,
    padding: str = 'same',
    is_linear: bool = False,
) -> Tensor:
    depthwise = keras.layers.DepthwiseConv2D(
        size,
        strides,
        padding=padding,
        use_bias=False,
        depthwise_initializer=per_channel(initializer(), x.shape.as_list()[-1]),
        name=f'{name}/conv',
    )
    return _normalised(depthwise(x), name, is_linear)


def _normalised(x: Tensor, name: str, is_linear: bool) -> Tensor:
    x = BatchNormalization(momentum=0.9, epsilon=1e-3, name=f'{name}/norm')(x)
    return x if is_linear else prelu(x, f'{name}/prelu')
