"""The published network: three pairs of 3x3 convolutions (32, 64, 128 filters) with ReLU, each pair
followed by a 2x2 pool.
"""

from __future__ import annotations

from typing import Callable

from gitloss.backend import Tensor, keras


def features(images: Tensor, initializer: Callable) -> Tensor:
    x = images
    for stage, filters in enumerate((32, 64, 128), 1):
        for part in (1, 2):
            x = keras.layers.Conv2D(
                filters,
                3,
                padding='same',
                activation='relu',
                kernel_initializer=initializer(),
                name=f'conv{stage}_{part}',
            )(x)
        x = keras.layers.MaxPooling2D(2, name=f'pool{stage}')(x)
    return keras.layers.Flatten(name='flatten')(x)
