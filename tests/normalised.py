"""A network with batch normalisation and dropout, and toy runs of it."""

import os

import toys
from callbacks.checkpoint import Checkpoint
from gitloss import data, layers
from gitloss.backbones import Backbone
from gitloss.backend import keras
from trainers import checkpoints, devices
from trainers.engine.trainer import Trainer

MOMENTUM = 0.9


def features(images, initializer):
    """Normalization of the images and of their pixels, so that a replay needs no weights; then both
    kinds between trained layers, and dropout.
    """
    conv = keras.layers.Conv2D(4, 3, kernel_initializer=initializer(), name='conv')
    x = conv(layers.BatchNormalization(momentum=MOMENTUM, name='of_images')(images))
    x = keras.layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM, name='of_features')(x))
    pixels = keras.layers.Flatten()(images)
    pixels = layers.BatchNormalization(momentum=MOMENTUM, name='of_pixels')(pixels)
    x = keras.layers.Concatenate()([keras.layers.Flatten()(x), pixels])
    x = keras.layers.Dense(8, kernel_initializer=initializer(), name='dense')(x)
    return layers.Dropout(0.25, name='drop')(x)


NETWORK = Backbone(features, slope=None)
# A worker has to be told of the network.
WORKER = (
    '-c',
    'import sys; sys.path[:0] = [".", "tests"]; import crew, normalised; '
    'from gitloss.backbones import BACKBONES; BACKBONES["normalised"] = normalised.NETWORK; '
    'from trainers import run; '
    'sys.exit(run.main(work=lambda settings: crew.trainer_of(settings).fit() and 0))',
)


def options(folder, **changes):
    settings = dict(model='normalised', weight_decay=1e-3, optimizer='momentum', learning_rate=0.02)
    return toys.options(folder, **dict(settings, **changes))


def train(settings, *callbacks):
    dataset = data.load('mnist', settings.data_folder)
    trainer = Trainer(settings, dataset, [*callbacks, Checkpoint()], devices.choose(settings))
    logs = trainer.fit()
    return logs, newest(settings)


def newest(settings):
    return checkpoints.CheckpointStore(os.path.join(settings.run_dir, 'ckpt')).newest()
