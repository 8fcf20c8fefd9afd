"""The embedding model: raw pixels -> preprocessing -> backbone -> embeddings.

The saved model takes raw pixels: preprocessing is part of it. `gitloss.heads` has the classifiers
over the embeddings.
"""

from __future__ import annotations

import itertools
from typing import Any, Callable

from gitloss.backbones import backbone as backbone_named
from gitloss.backend import Tensor, keras, tf
from gitloss.data.source import DataSpec, Preprocessing


class Preprocess(keras.layers.Layer):
    """pixels / divisor - mean. The mean is a weight, `mean_image`, saved with the model."""

    def __init__(self, preprocessing: Preprocessing, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._preprocessing = preprocessing

    def build(self, input_shape: Any) -> None:
        mean = 0.0 if self._preprocessing.mean is None else self._preprocessing.mean
        self.mean_image = self.add_weight(
            name='mean_image',
            shape=[int(n) for n in input_shape[1:]],
            initializer=tf.constant_initializer(mean),
            trainable=False,
        )
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs / self._preprocessing.divisor - self.mean_image


def _glorot(seed: int) -> Callable:
    """A function that returns Glorot uniform initialisers, each with its own seed.

    They are TensorFlow's, not Keras's: these give the same numbers on TensorFlow 1.15 and 2.x, and
    whatever else the graph contains.
    """
    numbers = itertools.count(1)
    return lambda: tf.glorot_uniform_initializer(seed=seed * 1000 + next(numbers))


def build(
    spec: DataSpec, backbone: str, embedding_dim: int, batch_size: int | None = None, seed: int = 1
) -> keras.Model:
    """Builds an embedding model in the current graph.

    Args:
      spec: a gitloss.data.DataSpec; a mean of None is zero until a checkpoint is restored.
      backbone: a key of gitloss.backbones.BACKBONES.
      embedding_dim: size of the embeddings.
      batch_size: static batch size of the model's own input; None: any. Calls of the model on other
        tensors are not restricted.
      seed: of all initial weights.

    Returns:
      A keras.Model from images, float32 [batch, height, width, channels], pixels 0 to 255, to
      embeddings [batch, embedding_dim]. Its layer "preprocess" holds the mean image.

    Raises:
      ValueError: unknown backbone, or images too small for it.
    """
    chosen, shape = backbone_named(backbone), tuple(spec.image_shape)
    if len(shape) != 3 or min(shape[:2]) < chosen.smallest:
        raise ValueError(
            f'image_shape: expected (height, width, channels) of {chosen.smallest} x '
            f'{chosen.smallest} pixels or more for {backbone}. Received: {shape!r}'
        )
    initializer = _glorot(seed)
    images = keras.Input(shape, batch_size=batch_size, name='input_images')
    preprocess = Preprocess(spec.preprocessing, name='preprocess')
    features = chosen.features(preprocess(images), initializer)
    embed = keras.layers.Dense(embedding_dim, kernel_initializer=initializer(), name='embeddings')
    return keras.Model(images, embed(features), name=backbone)
