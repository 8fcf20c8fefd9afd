"""Classifier and centers in shards: contiguous ranges of classes, on several workers, or one after
another on one.
"""

from gitloss.sharding.centers import ShardedCenterTable
from gitloss.sharding.classifier import ShardedClassifier
from gitloss.sharding.ranges import ClassRanges
from gitloss.sharding.variables import Shard, all_finite, initializer, load, shard_of

__all__ = [
    'ClassRanges',
    'Shard',
    'ShardedCenterTable',
    'ShardedClassifier',
    'all_finite',
    'initializer',
    'load',
    'shard_of',
]
