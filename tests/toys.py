"""A tiny data set in MNIST's format, a tiny network, and runs with them that take a second or
less.
"""

import gzip
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

import forking
from gitloss.backbones import BACKBONES
from gitloss.backend import keras
from trainers import options as options_module


def features(images, initializer):
    """Two convolutions of a few filters. Most of the time of a toy run goes into its graph, and
    with the published network that is four times as large.
    """
    x = images
    for stage, filters in enumerate((8, 16), 1):
        x = keras.layers.Conv2D(
            filters,
            3,
            padding='same',
            activation='relu',
            kernel_initializer=initializer(),
            name=f'conv{stage}_1',
        )(x)
        x = keras.layers.MaxPooling2D(2, name=f'pool{stage}')(x)
    return keras.layers.Flatten(name='flatten')(x)


# Only processes that import this module know it. What starts an interpreter names a real network.
BACKBONES['toy'] = BACKBONES['mnist_cnn']._replace(features=features)


def patterns(count, classes=4, size=8, seed=0):
    """Noisy images with one bright pixel block per class, which a network learns in a few steps.
    Labels go 0, 1, ... in turn.
    """
    random = np.random.RandomState(seed)
    labels = (np.arange(count) % classes).astype(np.uint8)
    images = random.randint(0, 60, (count, size, size)).astype(np.uint8)
    for image, label in zip(images, labels):
        row, column = divmod(int(label), 2)
        image[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] += 150
    return images, labels


def idx_bytes(array):
    return struct.pack(f'>BBBB{array.ndim}I', 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, train=120, test=40, classes=4, size=8):
    """Writes the four IDX files, gzip, of images of size x size pixels, and returns the folder as a
    string.
    """
    os.makedirs(str(folder), exist_ok=True)
    for part, count, seed in (('train', train, 1), ('t10k', test, 2)):
        images, labels = patterns(count, classes, size, seed)
        for kind, array in (('images-idx3', images), ('labels-idx1', labels)):
            with gzip.open(os.path.join(str(folder), f'{part}-{kind}-ubyte.gz'), 'wb') as file:
                file.write(idx_bytes(array))
    return str(folder)


def options(folder, **changes):
    """Options of a toy run below `folder`: 12 steps of 16 images, measured every 4."""
    settings = {
        'data_path': os.path.join(str(folder), 'data'),
        'exp_save_dir': os.path.join(str(folder), 'run'),
        'steps': 12,
        'batch_size': 16,
        'update_centers': 4,
        'device': 'cpu',
        'model': 'toy',
    }
    settings.update(changes)
    if not os.path.isdir(settings['data_path']):
        write_mnist(settings['data_path'])
    return options_module.Options(**settings)


def flags_of(settings):
    """The command line of Options for trainers.run."""
    return [
        f'--{name}={value}'
        for name, value in settings.as_dict().items()
        if 'run' in options_module.FIELDS[name].commands
    ]


def command(arguments, module='trainers.run', cwd=options_module.ROOT):
    """The subprocess.CompletedProcess of a command in a fork."""
    environment = dict(os.environ, PYTHONPATH=options_module.ROOT)
    with tempfile.TemporaryDirectory() as folder:
        return forking.run(['-m', module, *arguments], folder, environment, 240, cwd)


def started(arguments, module='trainers.run', python=sys.executable, **variables):
    """The subprocess.CompletedProcess of a command as a user starts it."""
    return subprocess.run(
        [python, '-m', module, *arguments],
        cwd=options_module.ROOT,
        env=dict(os.environ, **variables),
        capture_output=True,
        text=True,
        timeout=240,
    )
