"""Ranges of classes, and the variables that hold one range of a tensor over all classes."""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import numpy as np

from gitloss.backend import Tensor, tf
from gitloss.errors import check

_PIECE = 1 << 24  # numbers


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


class Shard(NamedTuple):
    """The place of a variable in a tensor over all classes.

    Attributes:
      name: of the whole tensor, in checkpoints.
      num_classes: rows of the whole tensor.
      places: the classes that the variable has on each worker.
      by_rows: whether steps write some of its rows. TensorFlow copies such a variable when it is
        read as a whole, and any other one as a whole from the first read of rows on.
    """

    name: str
    num_classes: int
    places: Sequence[ClassRange]
    by_rows: bool = False


def shard_variable(
    name: str, shard: Shard, shape: Sequence[int], dtype: Any = None, trainable: bool = True
) -> Any:
    """A variable of zeros that is the Shard of a whole tensor."""
    variable = tf.get_variable(
        name,
        list(shape),
        dtype or tf.float32,
        tf.zeros_initializer(),
        trainable=trainable,
        use_resource=True,
    )
    variable.gitloss_shard = shard
    return variable


def initializer(variable: Any) -> Tensor:
    """The operation that gives a variable its initial value, if that is one number, in memory of
    its own; else the variable's initializer.

    TensorFlow computes a constant once, keeps it with the operation, and copies it into the
    variable at the first update: twice the memory for good.
    """
    value = variable.initializer.inputs[1].op
    if value.type == 'Fill':
        number = value.inputs[1]
    elif value.type == 'Const' and len(value.get_attr('value').float_val) == 1:
        number = tf.constant(value.get_attr('value').float_val[0])
    else:
        return variable.initializer
    # Not a constant, as its memory is new each time; the sum takes that memory.
    zeros = tf.raw_ops.Empty(shape=variable.shape, dtype=variable.dtype.base_dtype, init=True)
    return tf.assign(variable, zeros + tf.cast(number, zeros.dtype))


def all_finite(variables: Sequence[Any]) -> list[Tensor]:
    """Whether the numbers of each variable are finite, one variable after another. Of one whose
    rows are written only a piece is read at a time, as its whole would be copied.
    """
    found: list[Tensor] = []
    for variable in variables:
        shard = getattr(variable, 'gitloss_shard', None)
        for rows in _pieces(variable) if shard and shard.by_rows else [None]:
            with tf.control_dependencies(found[-1:]):
                values = variable if rows is None else tf.gather(variable, rows)
                found.append(tf.reduce_all(tf.is_finite(values)))
    return found


def _pieces(variable: Any) -> list[Tensor]:
    count, *rest = variable.shape.as_list()
    size = max(1, _PIECE // max(1, int(np.prod(rest))))
    return [tf.range(start, min(start + size, count)) for start in range(0, count, size)]


def load(variable: Any, value: Any, session: Any) -> None:
    """Gives a variable a value, an array of its shape.

    Not row by row: TensorFlow copies a variable whose rows were written at every later read.
    """
    session.run(variable.initializer, {variable.initializer.inputs[1]: value})


def shard_of(variable: Any, variables: Sequence[Any]) -> Shard | None:
    """The Shard that a variable is, or None.

    The slots of an optimizer, whose names begin with that of their variable among `variables`, have
    its place.
    """
    name = variable.op.name
    for owner in variables:
        shard = getattr(owner, 'gitloss_shard', None)
        if shard is not None and (name + '/').startswith(owner.op.name + '/'):
            return shard._replace(name=shard.name + name[len(owner.op.name) :])
    return None
