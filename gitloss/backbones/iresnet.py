"""IResNet-18, 34, 50 and 100 of ArcFace (Deng et al., CVPR 2019, section 3.1): residual units
BN-conv-BN-PReLU-conv-BN after a 3x3 stem of stride 1.

Batch normalisation has the settings of the authors' code, momentum 0.9 and epsilon 2e-5. Their head
BN-dropout-dense-BN is the last normalisation here with --dropout and --embedding_norm.
"""

from __future__ import annotations

from typing import Callable

from gitloss.backbones.blocks import conv, prelu
from gitloss.backend import Tensor, keras
from gitloss.layers import BatchNormalization

# {depth: residual units of the four stages}
UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
_FILTERS = (64, 128, 256, 512)


def features(images: Tensor, initializer: Callable, depth: int) -> Tensor:
    """The features of IResNet-`depth`, a key of UNITS: the last feature map, [h, w, 512] for images
    of 16 h x 16 w pixels, flattened.
    """
    x = conv(images, 64, 3, 1, initializer, 'stem/conv')
    x = prelu(_norm(x, 'stem/norm'), 'stem/prelu')
    for stage, (filters, units) in enumerate(zip(_FILTERS, UNITS[depth]), 1):
        for unit in range(1, units + 1):
            strides = 2 if unit == 1 else 1
            x = _unit(x, filters, strides, initializer, f'stage{stage}/unit{unit}')
    return keras.layers.Flatten(name='flatten')(_norm(x, 'norm'))


def _unit(x: Tensor, filters: int, strides: int, initializer: Callable, name: str) -> Tensor:
    """A residual unit. The second convolution has the stride, and so has the 1x1 convolution in the
    shortcut, which only a unit with stride 2 has.
    """
    y = _norm(x, f'{name}/norm1')
    y = _norm(conv(y, filters, 3, 1, initializer, f'{name}/conv1'), f'{name}/norm2')
    y = conv(prelu(y, f'{name}/prelu'), filters, 3, strides, initializer, f'{name}/conv2')
    y = _norm(y, f'{name}/norm3')
    if strides > 1:
        x = conv(x, filters, 1, strides, initializer, f'{name}/shortcut/conv')
        x = _norm(x, f'{name}/shortcut/norm')
    return keras.layers.Add(name=f'{name}/sum')([x, y])


def _norm(x: Tensor, name: str) -> Tensor:
    return BatchNormalization(momentum=0.9, epsilon=2e-5, name=name)(x)
