"""Inception-ResNet-v1 (Szegedy et al., AAAI 2017, figures 10 to 14) as in facenet, the network of
the Git loss paper: 5 blocks A, 10 B and 5 C, whose residuals are scaled by 0.17, 0.10 and 0.20, and
a sixth block C without scale and activation.

Batch normalisation has facenet's settings: momentum 0.995, epsilon 1e-3, no gamma. facenet has
dropout of 0.2 before the embeddings, --dropout=0.2, and normalises them, --embedding_norm.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

from gitloss.backbones.blocks import conv
from gitloss.backend import Tensor, keras
from gitloss.layers import BatchNormalization

REPEATS = {'a': 5, 'b': 10, 'c': 5}
# A convolution is (filters, kernel size, stride, padding), stride 1 and padding 'same' if left out;
# a branch is a sequence of convolutions, a block one of branches.
_POOLED = 3  # a pool follows this convolution of the stem
STEM: Sequence[Sequence[Any]] = (
    (32, 3, 2, 'valid'),
    (32, 3, 1, 'valid'),
    (64, 3, 1, 'same'),
    (80, 1, 1, 'valid'),
    (192, 3, 1, 'valid'),
    (256, 3, 2, 'valid'),
)
Block = Sequence[Sequence[Sequence[Any]]]
BLOCK_A: Block = (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (32, 3), (32, 3)))
BLOCK_B: Block = (((128, 1),), ((128, 1), (128, (1, 7)), (128, (7, 1))))
BLOCK_C: Block = (((192, 1),), ((192, 1), (192, (1, 3)), (192, (3, 1))))
REDUCTION_A: Block = (((384, 3, 2, 'valid'),), ((192, 1), (192, 3), (256, 3, 2, 'valid')))
REDUCTION_B: Block = (
    ((256, 1), (384, 3, 2, 'valid')),
    ((256, 1), (256, 3, 2, 'valid')),
    ((256, 1), (256, 3), (256, 3, 2, 'valid')),
)


class ScaledSum(keras.layers.Layer):
    """x + scale * residual, of the inputs [x, residual]."""

    def __init__(self, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._scale = scale

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        x, residual = inputs
        return x + self._scale * residual


def features(images: Tensor, initializer: Callable) -> Tensor:
    """The 1792 features after the global average pool."""
    x = images
    for number, settings in enumerate(STEM, 1):
        x = _conv(x, initializer, f'stem/{number}', *settings)
        x = _pool(x, 'stem/pool') if number == _POOLED else x
    for number in range(1, REPEATS['a'] + 1):
        x = _residual(x, BLOCK_A, 0.17, initializer, f'a{number}')
    x = _reduction(x, REDUCTION_A, initializer, 'reduction_a')
    for number in range(1, REPEATS['b'] + 1):
        x = _residual(x, BLOCK_B, 0.10, initializer, f'b{number}')
    x = _reduction(x, REDUCTION_B, initializer, 'reduction_b')
    for number in range(1, REPEATS['c'] + 1):
        x = _residual(x, BLOCK_C, 0.20, initializer, f'c{number}')
    x = _residual(x, BLOCK_C, 1.0, initializer, 'c_last', is_last=True)
    return keras.layers.GlobalAveragePooling2D(name='pool')(x)


def _branches(x: Tensor, block: Block, initializer: Callable, name: str) -> list[Tensor]:
    ends = []
    for branch, convs in enumerate(block, 1):
        y = x
        for number, settings in enumerate(convs, 1):
            y = _conv(y, initializer, f'{name}/branch{branch}/{number}', *settings)
        ends.append(y)
    return ends


def _residual(
    x: Tensor,
    block: Block,
    scale: float,
    initializer: Callable,
    name: str,
    is_last: bool = False,
) -> Tensor:
    """relu(x + scale * up(branches)), where `up` is a 1x1 convolution with bias, without
    normalisation. The last one has no relu.
    """
    mixed = keras.layers.Concatenate(name=f'{name}/concat')(_branches(x, block, initializer, name))
    up = keras.layers.Conv2D(
        x.shape.as_list()[-1], 1, kernel_initializer=initializer(), name=f'{name}/up'
    )(mixed)
    x = ScaledSum(scale, name=f'{name}/sum')([x, up])
    return x if is_last else keras.layers.ReLU(name=f'{name}/relu')(x)


def _reduction(x: Tensor, block: Block, initializer: Callable, name: str) -> Tensor:
    """The branches and a pool, all of stride 2."""
    ends = [*_branches(x, block, initializer, name), _pool(x, f'{name}/pool')]
    return keras.layers.Concatenate(name=f'{name}/concat')(ends)


def _pool(x: Tensor, name: str) -> Tensor:
    return keras.layers.MaxPooling2D(3, 2, name=name)(x)


def _conv(
    x: Tensor,
    initializer: Callable,
    name: str,
    filters: int,
    size: Any,
    strides: int = 1,
    padding: str = 'same',
) -> Tensor:
    x = conv(x, filters, size, strides, initializer, f'{name}/conv', padding)
    x = BatchNormalization(momentum=0.995, epsilon=1e-3, scale=False, name=f'{name}/norm')(x)
    return keras.layers.ReLU(name=f'{name}/relu')(x)
