"""Classifier and centers in shards: contiguous ranges of classes, on several workers, or one after
another on one.
"""

from gitloss.sharding.centers import ShardedCenterTable
from gitloss.sharding.classifier import ShardedClassifier
from gitloss.sharding.ranges import ClassRanges, Shard, shard_of
from gitloss.sharding.rows import Rows

__all__ = ['ClassRanges', 'Rows', 'Shard', 'ShardedCenterTable', 'ShardedClassifier', 'shard_of']
