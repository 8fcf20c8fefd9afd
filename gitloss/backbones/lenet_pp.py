"""LeNet++ of the center loss paper (Wen et al., ECCV 2016, table 1): three pairs of 5x5
convolutions (32, 64, 128 filters) with PReLU, each pair followed by a 2x2 pool.
"""

from __future__ import annotations

from typing import Callable

from gitloss.backbones.blocks import prelu
from gitloss.backend import Tensor, keras


def features(images: Tensor, initializer: Callable) -> Tensor:
    x = images
    for stage, filters in enumerate((32, 64, 128), 1):
        for part in (1, 2):
            x = keras.layers.Conv2D(
                filters,
                5,
                padding='same',
                kernel_initializer=initializer(),
                name=f'conv{stage}_{part}',
            )(x)
            x = prelu(x, f'prelu{stage}_{part}')
        x = keras.layers.MaxPooling2D(2, name=f'pool{stage}')(x)
    return keras.layers.Flatten(name='flatten')(x)
