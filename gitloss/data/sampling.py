"""Samplers: which samples are in the global batch of a step, as a function of (seed, step).

The step number alone resumes a run, and the global batches do not depend on the number of workers.
All permutations come from NumPy's legacy generator, which is the same in all NumPy versions.
"""

from __future__ import annotations

import abc
import functools
from typing import Callable

import numpy as np

from gitloss.errors import check


class Sampler:
    """Chooses the samples of each batch. A subclass defines `indices`, which several threads may
    call at once.
    """

    @abc.abstractmethod
    def indices(self, step: int) -> np.ndarray:
        """Indices of the samples of batch `step` (from 0): int64 [batch_size]."""


class Shuffled(Sampler):
    """Every sample once per epoch, in a new order each epoch.

    Sample k of the endless stream is sample k mod n of the permutation of epoch k // n. Batch t
    holds the samples t * batch_size ... (t + 1) * batch_size - 1. Batches cross epoch boundaries,
    and no batch is short.

    Args:
      labels: int32 [n].
      batch_size: samples per batch; may exceed the number of samples.
      seed: of all permutations.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, seed: int) -> None:
        self._count, self._batch_size, self._seed = len(labels), batch_size, seed
        # A batch needs the permutation of its epoch, and at a boundary that of the previous one.
        self._shuffle = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.RandomState([self._seed, epoch]).permutation(self._count)

    def indices(self, step: int) -> np.ndarray:
        positions = int(step) * self._batch_size + np.arange(self._batch_size, dtype=np.int64)
        epochs, places = np.divmod(positions, self._count)
        return np.concatenate(
            [self._shuffle(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        )


class Balanced(Sampler):
    """P distinct identities per batch with K images of each, identity by identity.

    An identity-epoch is a permutation of all C identities. It gives C // P batches; its last C mod
    P identities are in none of them. The K images of an identity are the first of a permutation of
    its images, which is drawn anew for each batch. An identity with fewer images repeats them.

    Args:
      labels: int32 [n], the identity of each sample.
      batch_size: P * K.
      seed: of all permutations.
      images_per_identity: K.
      num_classes: C; None: the largest label + 1.

    Raises:
      ValueError: K does not divide the batch size, an identity has no sample, or C < P.
    """

    def __init__(
        self,
        labels: np.ndarray,
        batch_size: int,
        seed: int,
        images_per_identity: int,
        num_classes: int | None = None,
    ) -> None:
        check(
            batch_size % images_per_identity == 0,
            '--images_per_identity',
            f'a divisor of the batch size, {batch_size}',
            images_per_identity,
        )
        counts = np.bincount(labels, minlength=num_classes or 0)
        self._per_batch, self._each = batch_size // images_per_identity, images_per_identity
        check(
            counts.all(),
            '--sampler',
            f'training images of each of the {len(counts)} classes with balanced',
            f'none of {np.sum(counts == 0)} of them, the first one class {np.argmin(counts)}',
        )
        check(
            len(counts) >= self._per_batch,
            '--sampler',
            f'at least {self._per_batch} classes with balanced, for batches of {batch_size} with '
            f'{images_per_identity} images of each',
            len(counts),
        )
        self._seed, self._classes = seed, len(counts)
        # The samples of identity i are _samples[_ends[i] - counts[i] : _ends[i]].
        self._samples, self._ends = np.argsort(labels, kind='stable'), np.cumsum(counts)
        self._shuffle = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.RandomState([self._seed, epoch]).permutation(self._classes)

    def _images(self, step: int, identity: int) -> np.ndarray:
        start = self._ends[identity - 1] if identity else 0
        samples = self._samples[start : self._ends[identity]]
        order = np.random.RandomState([self._seed, step, identity]).permutation(len(samples))
        return samples[np.resize(order, self._each)]  # np.resize repeats what is too short

    def indices(self, step: int) -> np.ndarray:
        epoch, place = divmod(int(step), self._classes // self._per_batch)
        first = place * self._per_batch
        chosen = self._shuffle(epoch)[first : first + self._per_batch]
        return np.concatenate([self._images(int(step), int(identity)) for identity in chosen])


def sampler(
    name: str, images_per_identity: int, num_classes: int
) -> Callable[[np.ndarray, int, int], Sampler]:
    """The sampler of --sampler: (labels, batch size, seed) -> a Sampler."""
    if name == 'shuffled':
        return Shuffled
    return functools.partial(
        Balanced, images_per_identity=images_per_identity, num_classes=num_classes
    )
