"""Ranges of classes."""

from __future__ import annotations

from typing import NamedTuple

from gitloss.backend import Tensor, tf
from gitloss.errors import check


class ClassRange(NamedTuple):
    """The classes first ... stop - 1, which are the strata first_stratum ... stop_stratum - 1."""

    first: int
    stop: int
    first_stratum: int
    stop_stratum: int

    @property
    def size(self) -> int:
        return self.stop - self.first

    def has(self, labels: Tensor) -> Tensor:
        """Which of the labels, int [n], are in the range: bool [n]."""
        return tf.logical_and(labels >= self.first, labels < self.stop)


class ClassRanges:
    """Divides the classes into ranges of nearly equal size, one for each shard.

    Sampling takes one class of each stratum, so strata are not divided. Stratum j of n holds the
    classes j C // n ... (j + 1) C // n - 1. Without sampling every class is a stratum.

    Args:
      num_classes: C.
      workers: number of workers, whose shards are in the order of their ranks.
      each: number of shards of a worker.
      rate: the fraction of the classes that are sampled, in (0, 1].

    Attributes:
      num_classes, workers, each: as given.
      strata: n.

    Raises:
      ValueError: there are fewer strata than shards.
    """

    def __init__(
        self, num_classes: int, workers: int = 1, each: int = 1, rate: float = 1.0
    ) -> None:
        self.num_classes, self.workers, self.each = num_classes, workers, each
        self.strata = max(1, round(num_classes * rate))
        check(
            1 <= workers * each <= self.strata,
            '--class_shards',
            f'at most {self.strata} shards for a sample of {self.strata} of {num_classes} classes',
            f'{each} on each of {workers} workers',
        )

    def _between(self, first: int, stop: int) -> ClassRange:
        """The shards first ... stop - 1, in one range."""
        count = self.workers * self.each
        bounds = [place * self.strata // count for place in (first, stop)]
        classes = [bound * self.num_classes // self.strata for bound in bounds]
        return ClassRange(classes[0], classes[1], bounds[0], bounds[1])

    def shard(self, number: int) -> list[ClassRange]:
        """The range of each worker's shard `number`, from 0 on."""
        firsts = [rank * self.each + number for rank in range(self.workers)]
        return [self._between(first, first + 1) for first in firsts]

    def whole(self) -> list[ClassRange]:
        """The range of all shards of each worker."""
        firsts = [rank * self.each for rank in range(self.workers)]
        return [self._between(first, first + self.each) for first in firsts]
