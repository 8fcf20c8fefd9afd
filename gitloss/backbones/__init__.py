"""Backbones: networks from images to features, one kind per file, registered by name.

A backbone is a function `features(images, initializer)` of a Keras tensor, float32 [batch, height,
width, channels], that returns a Keras tensor [batch, n]. `initializer()` returns the next seeded
initialiser; each kernel takes one, in the order of the layers. `gitloss.model` adds the
preprocessing before the backbone and the embedding layer after it.
"""

from __future__ import annotations

import functools
from typing import Callable, NamedTuple

from gitloss.backbones import (
    applications,
    inception_resnet_v1,
    iresnet,
    lenet_pp,
    mnist_cnn,
    mobilefacenet,
)
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
    'inception_resnet_v1': Backbone(inception_resnet_v1.features, smallest=75),
    'mobilefacenet': Backbone(mobilefacenet.features, smallest=16),
    **{
        f'iresnet{depth}': Backbone(functools.partial(iresnet.features, depth=depth), smallest=16)
        for depth in iresnet.UNITS
    },
}


def backbone(name: str, flag: str = 'model') -> Backbone:
    """The backbone of that name: a key of BACKBONES, or applications:NAME, the network NAME of
    tf.keras.applications.

    Raises:
      ValueError: unknown name; the line begins with `flag`.
    """
    if name.startswith(applications.PREFIX):
        return Backbone(applications.network(name[len(applications.PREFIX) :], flag))
    allowed = [*sorted(BACKBONES), applications.PREFIX + 'NAME']
    return BACKBONES[check_choice(flag, name, allowed)]
