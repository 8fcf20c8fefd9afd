"""The embedding model: raw pixels -> preprocessing -> backbone -> embeddings.

The saved model takes raw pixels and needs nothing else. A classifier over the embeddings is in
`gitloss.heads`.
"""

from __future__ import annotations

import itertools
from typing import Any, Callable

from gitloss.backbones import backbone as backbone_named
from gitloss.backend import Tensor, keras, tf
from gitloss.data.source import DataSpec, Preprocessing

layers = keras.layers


class Preprocess(layers.Layer):
    """pixels / divisor - mean. The mean is a weight, `mean_image`: it is saved with the model and
    cannot be forgotten.
    """

    def __init__(self, preprocessing: Preprocessing, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._divisor = preprocessing.divisor
        mean = 0.0 if preprocessing.mean is None else preprocessing.mean
        self._initial = tf.constant_initializer(mean)

    def build(self, input_shape: Any) -> None:
        self.mean_image = self.add_weight(
            name='mean_image',
            shape=[int(n) for n in input_shape[1:]],
            initializer=self._initial,
            trainable=False,
        )
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs / self._divisor - self.mean_image


def _glorot(seed: int) -> Callable:
    """A source of Glorot uniform initialisers with seeds of their own.

    TensorFlow's, not Keras's: the same numbers on TensorFlow 1.15 and 2.x, and the same whatever
    else is in the graph.
    """
    numbers = itertools.count(1)
    return lambda: tf.glorot_uniform_initializer(seed=seed * 1000 + next(numbers))


def build(
    spec: DataSpec, backbone: str, embedding_dim: int, batch_size: int | None = None, seed: int = 1
) -> keras.Model:
    """Builds an embedding model in the current graph.

    Args:
      spec: a gitloss.data.DataSpec; a mean of None is zero, to be restored from a checkpoint.
      backbone: a key of gitloss.backbones.BACKBONES.
      embedding_dim: size of the embeddings.
      batch_size: fixed batch of the model's own input; None leaves it open. A call of the model on
        another tensor is free.
      seed: decides all initial weights.

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
    preprocessed = Preprocess(spec.preprocessing, name='preprocess')(images)
    features = chosen.features(preprocessed, initializer)
    embeddings = layers.Dense(embedding_dim, kernel_initializer=initializer(), name='embeddings')(
        features
    )
    return keras.Model(images, embeddings, name=backbone)
