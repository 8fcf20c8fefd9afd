"""Made-up sources of images, and a callback that sweeps one."""

import itertools

import numpy as np

from callbacks.base import Callback
from gitloss import data


def numbered(count):
    """Sample k has the label k and an image whose pixels are k."""
    labels = np.arange(count, dtype=np.int32)
    images = np.tile(labels.astype(np.uint8)[:, None, None, None], (1, 2, 3, 1))
    return data.ArraySource(images, labels)


class Sweep(Callback):
    """Records in `seen` the embeddings of the first `batches` batches of a source at each
    measurement.
    """

    def __init__(self, source, batches):
        self.source, self.batches, self.seen = source, batches, []

    def on_epoch_end(self, epoch, logs=None):
        for embeddings, _, _, _ in itertools.islice(self.handle.sweep(self.source), self.batches):
            self.seen.append(embeddings)


def mapped(path, count, *shape):
    """A memory map of a sparse file: it has a size and takes no disk space."""
    with open(str(path), 'wb') as file:
        file.truncate(count * int(np.prod(shape)))
    return np.memmap(str(path), np.uint8, 'r', shape=(count,) + shape)
