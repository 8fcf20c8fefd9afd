"""The classes that a step computes: those of the batch, and a random rest.

Of each stratum of s classes one is drawn, so each class with the probability 1 / s. A class of the
batch is always there and counts once; another drawn class stands for its stratum, with weight s.
So the sum over all classes of exp(logit), by which the softmax divides, has no bias; its logarithm,
the loss, is too small by about half of the relative variance of that sum. Partial FC (An et al.,
2021) draws classes without the weights.
"""

from __future__ import annotations

from typing import NamedTuple

from gitloss.backend import Tensor, tf
from gitloss.sharding.ranges import ClassRange, ClassRanges

# The logit of a column that is not there.
ABSENT = -1e30


class Columns(NamedTuple):
    """The classes of a range that a step computes, as columns of the logits.

    Attributes:
      rows: int [columns], the class of each column, counted from the first of the range; None: all.
      own: int [batch], the column of each sample's label; -1: the label is of another range.
      offset: float32 [columns], added to the logits; None: nothing.
    """

    rows: Tensor | None
    own: Tensor
    offset: Tensor | None

    @property
    def is_there(self) -> Tensor | float:
        """float32 [columns, 1]: 0 for an absent column, else 1."""
        if self.offset is None:
            return 1.0
        return tf.cast(self.offset > 0.5 * ABSENT, tf.float32)[:, None]


def all_columns(labels: Tensor, part: ClassRange) -> Columns:
    """All classes of a range, for labels int [batch]."""
    is_owned = part.has(labels)
    return Columns(None, tf.where_v2(is_owned, labels - part.first, -1), None)


def drawn(ranges: ClassRanges, seed: int, step: Tensor) -> tuple[Tensor, Tensor]:
    """(the class drawn from each stratum, the logarithm of the stratum's size): int32 and float32
    [strata], a function of (seed, step), whatever the number of ranges.
    """
    first, stop = _bounds(ranges, 0), _bounds(ranges, 1)
    sizes = tf.cast(stop - first, tf.float32)
    seeds = tf.stack([seed * 1000 + 999, tf.cast(step, tf.int32)])
    place = tf.random.stateless_uniform([ranges.strata], seeds) * sizes
    # float32 rounds a product up to the size, rarely.
    place = tf.minimum(tf.cast(place, tf.int32), tf.cast(stop - first, tf.int32) - 1)
    return tf.cast(first, tf.int32) + place, tf.math.log(sizes)


def _bounds(ranges: ClassRanges, shift: int) -> Tensor:
    strata = tf.range(ranges.strata, dtype=tf.int64) + shift
    return strata * ranges.num_classes // ranges.strata


def _stratum(labels: Tensor, ranges: ClassRanges) -> Tensor:
    """The strata of classes, int32: of class k ((k + 1) n - 1) // C."""
    wide = (tf.cast(labels, tf.int64) + 1) * ranges.strata - 1
    return tf.cast(wide // ranges.num_classes, tf.int32)


def sampled_columns(
    labels: Tensor, part: ClassRange, ranges: ClassRanges, classes: Tensor, log_sizes: Tensor
) -> Columns:
    """The drawn classes of a range, then one column for each sample of the batch, which is absent
    unless the sample is the first of a class of this range that was not drawn.

    Args:
      labels: int32 [batch].
      classes, log_sizes: of `drawn`.
    """
    batch, count = labels.shape.as_list()[0], part.stop_stratum - part.first_stratum
    classes, log_sizes = (
        one[part.first_stratum : part.stop_stratum] for one in (classes, log_sizes)
    )
    is_owned = part.has(labels)
    stratum = tf.where_v2(is_owned, _stratum(labels, ranges) - part.first_stratum, 0)
    is_drawn = tf.logical_and(is_owned, tf.equal(tf.gather(classes, stratum), labels))
    same = tf.cast(tf.equal(labels[:, None], labels[None, :]), tf.int32)
    first = tf.argmax(same, axis=1, output_type=tf.int32)
    is_added = tf.logical_and(
        tf.logical_and(is_owned, tf.logical_not(is_drawn)), tf.equal(first, tf.range(batch))
    )
    own = tf.where_v2(is_drawn, stratum, count + first)
    places = tf.where_v2(is_drawn, stratum, count)[:, None]
    of_batch = tf.scatter_nd(places, tf.ones([batch], tf.int32), [count + 1])[:count]
    # A drawn class of the batch has no weight.
    of_drawn = tf.where_v2(of_batch > 0, tf.zeros_like(log_sizes), log_sizes)
    of_added = tf.where_v2(is_added, tf.zeros([batch]), tf.fill([batch], ABSENT))
    # An absent column has the row of a drawn one, which the step touches anyway.
    rows = tf.concat([classes, tf.where_v2(is_added, labels, classes[:1])], 0) - part.first
    return Columns(rows, tf.where_v2(is_owned, own, -1), tf.concat([of_drawn, of_added], 0))
