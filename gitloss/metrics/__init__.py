"""Class distances in NumPy, without TensorFlow, and the declarations of metrics."""

from gitloss.metrics.classes import (
    ClassSums,
    evenly_spaced,
    inter_class_distance,
    intra_class_distance,
    pair_distances,
)
from gitloss.metrics.declaration import Metric

__all__ = [
    'ClassSums',
    'Metric',
    'evenly_spaced',
    'inter_class_distance',
    'intra_class_distance',
    'pair_distances',
]
