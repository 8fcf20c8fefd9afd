"""Keras models, for example of keras.applications, with the layers of this package."""

from __future__ import annotations

import inspect
from typing import Callable

from gitloss.backend import keras, tf
from gitloss.layers.dropout import Dropout
from gitloss.layers.normalization import BatchNormalization
from gitloss.layers.phase import PhaseLayer

_OF_PIXELS = ('Rescaling', 'Normalization')  # layers that TensorFlow 1.15 has not


def adopt(
    build: Callable[[], keras.Model], images: tf.Tensor, seed: Callable[[], int]
) -> tf.Tensor:
    """The outputs of a Keras model on `images`, with this package's normalisation and dropout.

    The model is built in a separate graph and cloned layer by layer, so that Keras's learning phase
    does not enter the current graph. Layers that scale pixels, Rescaling and Normalization, pass
    their input on: a backbone receives images after the preprocessing. Glorot uniform initialisers
    become TensorFlow's, which give the same numbers on TensorFlow 1.15 and 2.x.

    Args:
      build: creates the model, without pretrained weights, for example
        `lambda: keras.applications.MobileNetV2(input_shape, include_top=False, weights=None)`.
      images: Keras tensor [batch, height, width, channels].
      seed: returns the next seed, for an initialiser without one.

    Returns:
      A Keras tensor, the model's only output.

    Raises:
      ValueError: batch normalisation over another axis than the last.
    """

    with tf.Graph().as_default():
        network = build()
    return keras.models.clone_model(network, clone_function=lambda layer: _ours(layer, seed))(
        images
    )


def _ours(layer: keras.layers.Layer, seed: Callable[[], int]) -> keras.layers.Layer:
    """A layer in the place of a Keras model's, with new variables."""
    config = layer.get_config()
    if type(layer).__name__ in _OF_PIXELS:
        return keras.layers.Activation('linear', name=layer.name)
    if isinstance(layer, keras.layers.BatchNormalization):
        return BatchNormalization.from_config(config)
    if isinstance(layer, (keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D)):
        ones = (1,) * (len(layer.input_shape) - 2)
        config['noise_shape'] = (None, *ones, layer.input_shape[-1])
    if isinstance(layer, keras.layers.Dropout):
        return Dropout.from_config(config)
    for name, value in config.items():
        settings = value.get('config') if isinstance(value, dict) else None
        if not settings or settings.get('seed', 0) is not None:
            continue
        if value['class_name'] == 'GlorotUniform':
            config[name] = tf.glorot_uniform_initializer(seed=seed())
        else:
            settings['seed'] = seed()
    return type(layer).from_config(config)


def refuse_foreign_modes(network: keras.Model) -> None:
    """Raises ValueError for a layer that depends on Keras's learning phase, or has updates.

    The trainer runs no Keras updates and never sets the learning phase: such a network would train
    wrongly without any error.
    """
    for layer in network.submodules:
        if isinstance(layer, keras.layers.Layer) and _is_foreign(layer):
            raise ValueError(
                f'{layer.name}: expected a layer of gitloss.layers where training differs from '
                'inference; gitloss.layers.adopt replaces those of a Keras model. '
                f'Received: {type(layer).__name__} of {type(layer).__module__}'
            )


def _is_foreign(layer: keras.layers.Layer) -> bool:
    of_keras = type(layer).__module__.split('.')[0] in ('tensorflow', 'tensorflow_core', 'tf_keras')
    return not isinstance(layer, (keras.Model, PhaseLayer)) and (
        bool(layer.updates) or (of_keras and 'training' in inspect.signature(layer.call).parameters)
    )
