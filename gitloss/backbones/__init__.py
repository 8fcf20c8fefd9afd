"""Backbones: networks from images to features, one per file, registered by name.

A backbone is a function `features(images, initializer)` of a Keras tensor, float32 [batch, height,
width, channels], that returns a Keras tensor [batch, n]. `initializer()` returns the next seeded
initialiser; each kernel takes one, in the order of the layers. `gitloss.model` adds the
preprocessing before the backbone and the embedding layer after it.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

from gitloss.backbones import lenet_pp, mnist_cnn
from gitloss.errors import check_choice


class Backbone(NamedTuple):
    """A network and what the model around it needs.

    Attributes:
      features: the function, see the module.
      slope: initial slope of the PReLU between embeddings and softmax classifier; None: no PReLU.
      smallest: minimum height and width of an image in pixels.
    """

    features: Callable
    slope: float | None = None
    smallest: int = 1


BACKBONES = {
    'mnist_cnn': Backbone(mnist_cnn.features, slope=0.0, smallest=8),
    'lenet_pp': Backbone(lenet_pp.features, slope=0.25, smallest=8),
}


def backbone(name: str) -> Backbone:
    """The backbone of that name; ValueError for an unknown name."""
    return BACKBONES[check_choice('model', name, sorted(BACKBONES))]
