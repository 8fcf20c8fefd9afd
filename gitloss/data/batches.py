"""Training batches as a pure function of (seed, step).

Sample k of the endless stream is sample k mod n of the permutation of epoch k // n. Batch t holds
the samples t * batch_size ... (t + 1) * batch_size - 1. Every sample occurs once per epoch, batches
cross epoch boundaries, and no batch is short. The step number alone resumes a run, and the global
batches do not depend on the number of workers.
"""

from __future__ import annotations

import functools
from typing import Any, Iterator

import numpy as np

from gitloss.backend import tf
from gitloss.data.source import Source
from gitloss.errors import check


class BatchStream:
    """An endless, seeded stream of batches over a Source.

    Args:
      source: the split to read.
      batch_size: samples per batch; may exceed the number of samples.
      seed: of all permutations. They come from NumPy's legacy generator, which is the same in all
        NumPy versions.
      rank, size: worker `rank` of `size` reads only the rank-th part of each batch; `size` divides
        the batch size.
    """

    def __init__(
        self, source: Source, batch_size: int, seed: int, rank: int = 0, size: int = 1
    ) -> None:
        self._source, self._batch_size, self._seed = source, batch_size, seed
        self._part = part_of(batch_size, rank, size)
        # A batch needs the permutation of its epoch, and at a boundary that of the previous one.
        self._shuffle = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.RandomState([self._seed, epoch]).permutation(len(self._source))

    def indices(self, step: int) -> np.ndarray:
        """Indices of the samples of batch `step` (from 0): int64 [batch_size]."""
        positions = int(step) * self._batch_size + np.arange(self._batch_size, dtype=np.int64)
        epochs, places = np.divmod(positions, len(self._source))
        return np.concatenate(
            [self._shuffle(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        )

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """This worker's part of batch `step`: (the result of the source's `read`, labels int32
        [batch_size / size]).
        """
        chosen = self.indices(step)[self._part]
        try:
            return self._source.read(chosen), self._source.labels[chosen]
        except StopIteration as error:  # which TensorFlow takes for the end of the batches
            raise RuntimeError(f'the source ended at batch {step}') from error

    def dataset(self, first_step: Any) -> Any:
        """A tf.data.Dataset of the batches from `first_step` (int64 scalar tensor) on: images uint8
        [batch_size / size, height, width, channels] and labels, with static shapes.

        Reading and decoding run on the host in parallel with the step, two batches ahead.

        Raises:
          ValueError: the source's `decode` returns another dtype than uint8, or another shape.
        """
        source, rows = self._source, self._part.stop - self._part.start
        stored = source.read(np.zeros(1, np.int64))  # for its dtype and shape

        @tf.autograph.experimental.do_not_convert  # keeps an error in `decode` to one line
        def at(step: Any) -> Any:
            raw, labels = tf.numpy_function(
                self.batch, [step], [tf.as_dtype(stored.dtype), tf.int32]
            )
            raw.set_shape((rows,) + stored.shape[1:])
            labels.set_shape((rows,))
            images = source.decode(raw)
            check(images.dtype == tf.uint8, 'decode', 'uint8 images', images.dtype.name)
            images.set_shape((rows,) + tuple(source.image_shape))
            return images, labels

        return tf.data.Dataset.range(first_step, np.iinfo(np.int64).max).map(at).prefetch(2)


def part_of(batch_size: int, rank: int, size: int) -> slice:
    """The rows of a global batch that worker `rank` of `size` computes."""
    rows = batch_size // size
    return slice(rank * rows, (rank + 1) * rows)


def padded_batches(
    source: Source, batch_size: int, rank: int = 0, size: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Batches of a Source in order, all of one size, for graphs with static shapes.

    Yields:
      (images uint8 [batch_size / size, height, width, channels], labels int32 [batch_size], n): the
      first n samples are the next samples of the source. The last batch is padded with samples from
      the beginning, repeated if the source is shorter than a batch. Labels are those of the whole
      batch, images those of this worker's part.
    """
    total, part = len(source), part_of(batch_size, rank, size)
    for start in range(0, total, batch_size):
        chosen = np.arange(start, start + batch_size) % total
        yield source.images(chosen[part]), source.labels[chosen], min(batch_size, total - start)
