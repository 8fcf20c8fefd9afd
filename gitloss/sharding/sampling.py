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


class Columns(NamedTuple):
    """The classes of a range that a step computes, as columns of the logits.

    Attributes:
      rows: int32 [columns], the class of each column, counted from the first of the range; None:
        all. No class is there twice.
      own: int [batch], the column of each sample's label; -1: the label is of another range.
      offset: float32 [columns], added to the logits; None: nothing.
    """

    rows: Tensor | None
    own: Tensor
    offset: Tensor | None


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


def sampled_columns(
    labels: Tensor, part: ClassRange, classes: Tensor, log_sizes: Tensor
) -> Columns:
    """The drawn classes of a range, then those of the batch that were not drawn, each once.

    Their number is known in the step only: a place for each label of the batch would make the
    columns of many workers, whose batch is large, more than the classes of a range.

    Args:
      labels: int32 [batch].
      classes, log_sizes: of `drawn`.
    """
    strata = slice(part.first_stratum, part.stop_stratum)
    classes, log_sizes = classes[strata], log_sizes[strata]
    drawn_count = part.stop_stratum - part.first_stratum
    is_owned = part.has(labels)
    # Unique keeps the order. A label of another range repeats a drawn class.
    candidates = tf.concat([classes, tf.where_v2(is_owned, labels, classes[0])], 0)
    columns, places = tf.unique(candidates)
    count, own = tf.size(columns), places[drawn_count:]
    in_batch = tf.math.unsorted_segment_sum(tf.cast(is_owned, tf.int32), own, count) > 0
    # A class of the batch counts once, drawn or not.
    log_weights = tf.pad(log_sizes, [[0, count - drawn_count]])
    offset = tf.where_v2(in_batch, tf.zeros_like(log_weights), log_weights)
    return Columns(columns - part.first, tf.where_v2(is_owned, own, -1), offset)
