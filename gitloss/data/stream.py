"""Training batches as a pure function of (seed, step).

Sample number k of the endless stream is sample k mod n of the shuffle of epoch k // n, and batch t
holds the samples t * batch_size ... (t + 1) * batch_size - 1: every sample comes once an epoch,
batches run across epoch boundaries and none is short. A run is resumed by its step number alone,
and the global batches do not depend on who reads them.
"""
from __future__ import annotations

import functools

import numpy as np

from gitloss.backend import tf


class BatchStream:
    """An endless, seeded stream of batches over a Split that lies in memory.

    Args:
      split: images uint8 [n, height, width, channels] and labels int32 [n].
      batch_size: samples per batch; may exceed n.
      seed: decides all shuffles. NumPy's legacy generator is used: its numbers are frozen across
        NumPy versions.
      rank, size: worker `rank` of `size` reads the rank-th part of each batch and nothing else;
        `size` divides the batch.
    """

    def __init__(self, split, batch_size, seed, rank=0, size=1):
        self._split, self._batch_size, self._seed = split, batch_size, seed
        self._part = part_of(batch_size, rank, size)
        # most batches need one epoch, the others also the one before
        self._shuffle = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch):
        return np.random.RandomState([self._seed, epoch]).permutation(len(self._split.labels))

    def indices(self, step):
        """Numbers of the samples of batch `step` (from 0): int64 [batch_size]."""
        positions = int(step) * self._batch_size + np.arange(self._batch_size, dtype=np.int64)
        epochs, places = np.divmod(positions, len(self._split.labels))
        return np.concatenate([self._shuffle(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])

    def batch(self, step):
        """This worker's part of batch `step`: (images uint8 [batch_size / size, ...], labels int32
        [batch_size / size]).
        """
        chosen = self.indices(step)[self._part]
        return self._split.images[chosen], self._split.labels[chosen]

    def dataset(self, first_step):
        """A tf.data.Dataset of the batches from `first_step` (int64 scalar tensor) on, with static
        shapes.

        Gathering is host work beside the step: the pipeline keeps two batches ahead.
        """
        def at(step):
            images, labels = tf.numpy_function(self.batch, [step], [tf.uint8, tf.int32])
            rows = self._part.stop - self._part.start
            images.set_shape((rows,) + self._split.images.shape[1:])
            labels.set_shape((rows,))
            return images, labels
        return tf.data.Dataset.range(first_step, np.iinfo(np.int64).max).map(at).prefetch(2)


def part_of(batch_size, rank, size):
    """The rows of a global batch that worker `rank` of `size` computes."""
    rows = batch_size // size
    return slice(rank * rows, (rank + 1) * rows)


def padded_batches(split, batch_size, rank=0, size=1):
    """Walks a Split in order in batches of one size, as a graph of static shapes wants it.

    Yields:
      (images float32 [batch_size / size, ...], labels int32 [batch_size], n): the first n samples
      are the split's next ones. The last batch is filled up with samples from the beginning of the
      split, again and again if it is shorter than a batch. Labels are those of the whole batch,
      images those of this worker's part.
    """
    total, part = len(split.labels), part_of(batch_size, rank, size)
    for start in range(0, total, batch_size):
        chosen = np.arange(start, start + batch_size) % total
        yield split.images[chosen[part]].astype(np.float32), split.labels[chosen], min(batch_size, total - start)
