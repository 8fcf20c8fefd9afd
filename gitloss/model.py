"""The embedding model: raw pixels -> preprocessing -> backbone -> embeddings.

The saved model takes raw pixels and gives the embeddings that the losses and distances see:
preprocessing and normalisation are part of it. `gitloss.heads` has the classifiers over the
embeddings.
"""

from __future__ import annotations

import itertools
from typing import Any, Callable

from gitloss import bfloat16
from gitloss.backbones import backbone as backbone_named
from gitloss.backend import Tensor, keras, tf
from gitloss.data.source import DataSpec, Preprocessing
from gitloss.errors import check
from gitloss.layers import BatchNormalization, Dropout


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


class UnitLength(keras.layers.Layer):
    """Rows scaled to length 1; a row of zeros stays as it is."""

    def call(self, inputs: Tensor) -> Tensor:
        return tf.nn.l2_normalize(inputs, axis=1)


def _glorot(seed: int) -> Callable:
    """A function that returns Glorot uniform initialisers, each with its own seed.

    They are TensorFlow's, not Keras's: these give the same numbers on TensorFlow 1.15 and 2.x, and
    whatever else the graph contains.
    """
    numbers = itertools.count(1)
    return lambda: tf.glorot_uniform_initializer(seed=seed * 1000 + next(numbers))


def _check_shape(shape: tuple[int, ...], smallest: int, backbone: str) -> None:
    expected = f'(height, width, channels) of {smallest} x {smallest} pixels or more'
    is_large_enough = len(shape) == 3 and min(shape[:2]) >= smallest
    check(is_large_enough, 'image_shape', f'{expected} for {backbone}', repr(shape))


def build(
    spec: DataSpec,
    backbone: str,
    embedding_dim: int,
    batch_size: int | None = None,
    seed: int = 1,
    dtype: str = 'float32',
    **embedding: Any,
) -> keras.Model:
    """Builds an embedding model in the current graph.

    Args:
      spec: a gitloss.data.DataSpec; a mean of None is zero until a checkpoint is restored.
      backbone: a name that gitloss.backbones.backbone knows.
      embedding_dim: size of the embeddings.
      batch_size: static batch size of the model's own input; None: any. Calls of the model on other
        tensors are not restricted.
      seed: of all initial weights.
      dtype: in which the backbone computes, float32 or, with TensorFlow 2, bfloat16.
      embedding: settings of `embedded`.

    Returns:
      A keras.Model from pixels 0 to 255, float32 [batch, height, width, channels], to embeddings
      [batch, embedding_dim]. Its layer "preprocess" holds the mean image.

    Raises:
      ValueError: unknown backbone, or images too small for it.
    """
    chosen, shape = backbone_named(backbone), tuple(spec.image_shape)
    _check_shape(shape, chosen.smallest, backbone)
    initializer = _glorot(seed)
    images = keras.Input(shape, batch_size=batch_size, name='input_images')
    pixels = Preprocess(spec.preprocessing, name='preprocess')(images)
    with bfloat16.computing(dtype):
        features = chosen.features(pixels, initializer)
    embeddings = embedded(features, embedding_dim, initializer, **embedding)
    return keras.Model(images, embeddings, name=backbone.rpartition(':')[2])


def embedded(
    features: Tensor,
    embedding_dim: int,
    initializer: Callable,
    dropout: float = 0.0,
    embedding_norm: bool = False,
    normalize: bool = False,
) -> Tensor:
    """The embeddings [batch, embedding_dim] of features [batch, n]: a dense layer.

    Args:
      dropout: fraction of the features that training drops, in [0, 1).
      embedding_norm: batch normalisation of the embeddings, without gamma, as in ArcFace's code and
        facenet. The dense layer then has no bias, which the normalisation would remove.
      normalize: scale the embeddings to length 1.
    """
    if dropout:
        features = Dropout(dropout, name='dropout')(features)
    x = keras.layers.Dense(
        embedding_dim,
        use_bias=not embedding_norm,
        kernel_initializer=initializer(),
        name='embeddings',
    )(features)
    if embedding_norm:
        x = BatchNormalization(momentum=0.9, epsilon=2e-5, scale=False, name='embedding_norm')(x)
    return UnitLength(name='unit_length')(x) if normalize else x
