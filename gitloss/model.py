"""Embedding networks: raw pixels -> (embeddings, logits), by name.

A network is a function `images, embedding_dim, seed -> (embeddings, what the classifier reads)` on
Keras tensors, entered under its name in NETWORKS. `build` puts the preprocessing in front and the
classifier behind, so that the saved model takes raw pixels and needs nothing else.
"""

from __future__ import annotations

import itertools

from gitloss import heads
from gitloss.backend import keras, tf

layers = keras.layers


class Preprocess(layers.Layer):
    """pixels / 255 - mean image. The mean image is a weight: it is saved with the model and cannot
    be forgotten.
    """

    def __init__(self, mean_image=None, **kwargs):
        super().__init__(**kwargs)
        self._initial = (
            tf.zeros_initializer() if mean_image is None else tf.constant_initializer(mean_image)
        )

    def build(self, input_shape):
        self.mean_image = self.add_weight(
            name='mean_image',
            shape=[int(n) for n in input_shape[1:]],
            initializer=self._initial,
            trainable=False,
        )
        super().build(input_shape)

    def call(self, inputs):
        return inputs / 255.0 - self.mean_image


def _glorot(seed):
    """A source of Glorot uniform initialisers with seeds of their own.

    TensorFlow's, not Keras's: the same numbers on TensorFlow 1.15 and 2.x, and the same whatever
    else is in the graph.
    """
    numbers = itertools.count(1)
    return lambda: tf.glorot_uniform_initializer(seed=seed * 1000 + next(numbers))


def mnist_cnn(images, embedding_dim, seed):
    """The published network: three pairs of 3x3 convolutions (32, 64, 128) with ReLU, each followed
    by a 2x2 pool.
    """
    initial = _glorot(seed)
    x = images
    for stage, filters in enumerate((32, 64, 128), 1):
        for part in (1, 2):
            x = layers.Conv2D(
                filters,
                3,
                padding='same',
                activation='relu',
                kernel_initializer=initial(),
                name='conv%d_%d' % (stage, part),
            )(x)
        x = layers.MaxPooling2D(2, name='pool%d' % stage)(x)
    embeddings = layers.Dense(embedding_dim, kernel_initializer=initial(), name='embeddings')(
        layers.Flatten(name='flatten')(x)
    )
    return embeddings, layers.PReLU(name='prelu')(embeddings)


def lenet_pp(images, embedding_dim, seed):
    """LeNet++ of the center loss paper (Wen et al., ECCV 2016, table 1): pairs of 5x5 convolutions,
    PReLU, 2x2 pools.
    """
    initial = _glorot(seed)
    x = images
    for stage, filters in enumerate((32, 64, 128), 1):
        for part in (1, 2):
            x = layers.Conv2D(
                filters,
                5,
                padding='same',
                kernel_initializer=initial(),
                name='conv%d_%d' % (stage, part),
            )(x)
            x = layers.PReLU(
                alpha_initializer=keras.initializers.Constant(0.25),
                shared_axes=[1, 2],
                name='prelu%d_%d' % (stage, part),
            )(x)
        x = layers.MaxPooling2D(2, name='pool%d' % stage)(x)
    embeddings = layers.Dense(embedding_dim, kernel_initializer=initial(), name='embeddings')(
        layers.Flatten(name='flatten')(x)
    )
    return embeddings, layers.PReLU(
        alpha_initializer=keras.initializers.Constant(0.25), name='prelu'
    )(embeddings)


NETWORKS = {'mnist_cnn': mnist_cnn, 'lenet_pp': lenet_pp}


def build(
    name,
    image_shape,
    num_classes,
    embedding_dim=2,
    batch_size=None,
    seed=1,
    mean_image=None,
    head=None,
):
    """Builds a network as a `keras.Model` in the current graph.

    Args:
      name: a key of NETWORKS.
      image_shape: (height, width, channels).
      num_classes: number of logits.
      embedding_dim: size of the embeddings.
      batch_size: fixed batch of the model's own input; None leaves it open. A call of the model on
        another tensor is free.
      seed: decides all initial weights.
      mean_image: float32 [height, width, channels] in units of pixels / 255; None is zero, to be
        restored from a checkpoint.
      head: a heads.Margin, see `heads.head`; None is plain softmax.

    Returns:
      A model from images, float32 [batch, height, width, channels], pixels 0 to 255, to
      [embeddings [batch, embedding_dim], logits [batch, num_classes]]. Its layer "preprocess" holds
      the mean image.

    Raises:
      ValueError: unknown name, or an image too small for the network's pools.
    """
    if name not in NETWORKS:
        raise ValueError(
            'model: expected one of {}. Received: {!r}'.format(', '.join(sorted(NETWORKS)), name)
        )
    if len(image_shape) != 3 or min(image_shape[:2]) < 8:
        raise ValueError(
            'image_shape: expected (height, width, channels) of 8 x 8 pixels or more, three 2x2 pools follow. '
            f'Received: {tuple(image_shape)!r}'
        )
    images = keras.Input(tuple(image_shape), batch_size=batch_size, name='input_images')
    embeddings, features = NETWORKS[name](
        Preprocess(mean_image, name='preprocess')(images), embedding_dim, seed
    )
    initial = tf.glorot_uniform_initializer(seed=seed * 1000)
    if head is None or head.name == 'softmax':
        logits = layers.Dense(num_classes, kernel_initializer=initial, name='logits')(features)
    else:
        logits = heads.CosineClassifier(num_classes, head.scale, initial, name='logits')(embeddings)
    return keras.Model(images, [embeddings, logits], name=name)
