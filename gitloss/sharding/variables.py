"""Variables with many classes: the values of one range of a tensor over all classes, and what keeps
TensorFlow from copying them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import numpy as np

from gitloss.backend import Tensor, tf
from gitloss.sharding.ranges import ClassRange

_PIECE = 1 << 24  # numbers


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
