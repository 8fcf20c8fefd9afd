"""Class distances in NumPy, without TensorFlow, and the declarations of metrics."""

from gitloss.metrics.classes import (
    ClassSums,
    class_spreads,
    evenly_spaced,
    inter_class_distance,
    intra_class_distance,
    mean_pair_distance,
    pair_distances,
    standard_error,
)
from gitloss.metrics.declaration import Metric
from gitloss.metrics.whole_classes import sampled_classes

__all__ = [
    'ClassSums',
    'Metric',
    'class_spreads',
    'evenly_spaced',
    'inter_class_distance',
    'intra_class_distance',
    'mean_pair_distance',
    'pair_distances',
    'sampled_classes',
    'standard_error',
]
