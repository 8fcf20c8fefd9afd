"""Models of both Kerases for the tests of gitloss.keras, and their centers by NumPy."""

import importlib

import numpy as np

import toys
from loss_reference import numpy_update

CLASSES = 4
KERASES = {'keras3': 'keras', 'tf_keras': 'tf_keras'}


class Kit:
    """A Keras and its GitLossModel.

    Attributes:
      keras: the module; model: the class GitLossModel.
    """

    def __init__(self, name):
        self.name, self.keras = name, importlib.import_module(KERASES[name])
        self.model = importlib.import_module('gitloss.keras.' + name).GitLossModel

    def network(self, dim=3):
        keras = self.keras
        return keras.Sequential(
            [
                keras.layers.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(16, activation='relu'),
                keras.layers.Dense(dim, name='embeddings'),
            ]
        )

    def compiled(self, rate=0.05, network=None, compiled=(), **settings):
        """A GitLossModel with SGD. `compiled`: other arguments of compile."""
        self.keras.utils.set_random_seed(1)
        model = self.model(network or self.network(), CLASSES, **settings)
        arguments = {
            'optimizer': self.keras.optimizers.SGD(rate, momentum=0.9),
            'loss': self.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            'metrics': ['accuracy'],
        }
        model.compile(**dict(arguments, **dict(compiled)))
        return model

    def loss_scaled(self, factor):
        """SGD whose loss has a factor that is halved after an overflow."""
        room = self.keras.optimizers if self.name == 'keras3' else self.keras.mixed_precision
        return room.LossScaleOptimizer(self.keras.optimizers.SGD(0.05), initial_scale=factor)

    def precision(self, name):
        """Sets the global precision."""
        if self.name == 'keras3':
            self.keras.config.set_dtype_policy(name)
        else:
            self.keras.mixed_precision.set_global_policy(name)


def samples(count=96):
    """Images float32 [count, 8, 8, 1] in [0, 1], labels uint8 [count]."""
    images, labels = toys.patterns(count, CLASSES)
    return (images / 255.0).astype(np.float32)[..., None], labels


def fitted(model, epochs=1, count=96, batch_size=16):
    """{name: values of the epochs} of a fit in order."""
    images, labels = samples(count)
    fit = model.fit(images, labels, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return fit.history


def value(variable):
    """A variable of either Keras as an array."""
    return np.array(variable.numpy())


def moved(embeddings, labels, batch_size=16):
    """(centers, updates) after one pass over embeddings that stay as they are."""
    centers = np.zeros((CLASSES, embeddings.shape[1]))
    for start in range(0, len(labels), batch_size):
        rows = slice(start, start + batch_size)
        centers = numpy_update(centers, embeddings[rows].astype(float), labels[rows], 0.5)
    return centers, np.bincount(labels)
