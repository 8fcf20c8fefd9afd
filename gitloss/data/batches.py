"""Training batches as a pure function of (seed, step).

A sampler chooses the samples of the global batch of each step; each worker reads its part of it.
The step number alone resumes a run, and neither samples nor pixels depend on the number of workers.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Iterator

import numpy as np

from gitloss.backend import tf
from gitloss.data import augmentation
from gitloss.data.integrity import in_threads
from gitloss.data.sampling import Sampler, Shuffled
from gitloss.data.source import Source
from gitloss.errors import check

_MOST_READERS = 8  # batches that are read at once


class BatchStream:
    """An endless, seeded stream of batches over a Source.

    Args:
      source: the split to read.
      batch_size: samples per batch; may exceed the number of samples.
      seed: of the order of the samples and of the augmentation.
      rank, size: worker `rank` of `size` reads only the rank-th part of each batch; `size` divides
        the batch size.
      sampler: (labels, batch size, seed) -> a Sampler.
      augment: a value of --augment, see `augmentation.parse`.
      augment_until: the step from which on images stay as they are; 0: never.

    Raises:
      ValueError: the data do not fit the sampler, or `augment` is invalid.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        rank: int = 0,
        size: int = 1,
        sampler: Callable[[np.ndarray, int, int], Sampler] = Shuffled,
        augment: str = '',
        augment_until: int = 0,
    ) -> None:
        self._source, self._batch_size, self._seed = source, batch_size, seed
        self._part = part_of(batch_size, rank, size)
        self._augmentation, self._until = augmentation.parse(augment), augment_until
        self.indices = sampler(source.labels, batch_size, seed).indices

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

        Reading, decoding and augmentation run on the host in parallel with the step, two batches
        ahead. Where they take time, several batches are in work at once; their order stays.

        Raises:
          ValueError: the source's `decode` returns another dtype than uint8, or another shape; the
            images are too small for the augmentation.
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
            return self._augmented(images, step), labels

        steps = tf.data.Dataset.range(first_step, np.iinfo(np.int64).max)
        if not (source.parallel or self._augmentation):
            return steps.map(at).prefetch(2).with_options(_options())
        readers = _readers()
        return steps.map(at, num_parallel_calls=readers).prefetch(2).with_options(_options(readers))

    def _augmented(self, images: Any, step: Any) -> Any:
        if not self._augmentation:
            return images

        def augmented() -> Any:
            return augmentation.augmented(
                images, self._augmentation, self._seed, step, self._part, self._batch_size
            )

        return tf.cond(step < self._until, augmented, lambda: images) if self._until else augmented()


def _readers() -> int:
    return min(os.cpu_count() or 1, _MOST_READERS)


def _options(threads: int = 0) -> Any:
    """tf.data options: batches in their order, computed by `threads` threads of their own, if any.
    The threads of the session, of which there may be one alone, are those of the step.
    """
    options = tf.data.Options()
    is_new = hasattr(options, 'threading')  # TensorFlow 1.15 has the same under other names
    setattr(options, 'deterministic' if is_new else 'experimental_deterministic', True)
    # Nothing is tuned here. The thread that would tune waits by the time of day: after a jump of
    # the clock it would hold up the end of a run for as long.
    tuning = options.autotune if is_new else options.experimental_optimization
    setattr(tuning, 'enabled' if is_new else 'autotune', False)
    if threads:
        threading = options.threading if is_new else options.experimental_threading
        threading.private_threadpool_size = threads
    return options


def part_of(batch_size: int, rank: int, size: int) -> slice:
    """The rows of a global batch that worker `rank` of `size` computes."""
    rows = batch_size // size
    return slice(rank * rows, (rank + 1) * rows)


def padded_batches(
    source: Source, batch_size: int, rank: int = 0, size: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Batches of a Source in order, all of one size, for graphs with static shapes.

    Where reading takes time, the next batches are read in other threads meanwhile.

    Yields:
      (images uint8 [batch_size / size, height, width, channels], labels int32 [batch_size], n): the
      first n samples are the next samples of the source. The last batch is padded with samples from
      the beginning, repeated if the source is shorter than a batch. Labels are those of the whole
      batch, images those of this worker's part.
    """
    total, part = len(source), part_of(batch_size, rank, size)

    def read(start: int) -> tuple[np.ndarray, np.ndarray, int]:
        chosen = np.arange(start, start + batch_size) % total
        return source.images(chosen[part]), source.labels[chosen], min(batch_size, total - start)

    starts = range(0, total, batch_size)
    return in_threads(read, starts, _readers()) if source.parallel else map(read, starts)
