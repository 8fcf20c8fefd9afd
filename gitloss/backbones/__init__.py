"""Backbones: networks from images to features, one a file, by name.

A backbone is a function `features(images, initializer)` of a Keras tensor, float32 [batch, height,
width, channels], that returns a Keras tensor [batch, n]. `initializer()` gives the next seeded
initialiser, one per kernel in the order of the layers. `gitloss.model` puts the preprocessing in
front and the embedding layer behind.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

from gitloss.backbones import lenet_pp, mnist_cnn


class Backbone(NamedTuple):
    """slope: where the PReLU between the embeddings and the softmax classifier starts; None: no
    PReLU. smallest: the least height and width of an image in pixels.
    """

    features: Callable
    slope: float | None = None
    smallest: int = 1


BACKBONES = {
    'mnist_cnn': Backbone(mnist_cnn.features, slope=0.0, smallest=8),
    'lenet_pp': Backbone(lenet_pp.features, slope=0.25, smallest=8),
}


def backbone(name: str) -> Backbone:
    """The backbone of that name.

    Raises:
      ValueError: unknown name.
    """
    if name not in BACKBONES:
        expected = ', '.join(sorted(BACKBONES))
        raise ValueError(f'model: expected one of {expected}. Received: {name!r}')
    return BACKBONES[name]
