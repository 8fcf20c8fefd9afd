"""Data sets, read by index through Sources, and the deterministic stream of training batches."""

from __future__ import annotations

from gitloss.data import mnist
from gitloss.data.batches import BatchStream, padded_batches, part_of
from gitloss.data.source import ArraySource, Dataset, DataSpec, Preprocessing, Source, mean_image

# --dataset: functions of --data_path that return a Dataset.
DATASETS = {
    'mnist': mnist.load_mnist,
}


def load(name: str, path: str) -> Dataset:
    """Loads a data set by name. Raises ValueError for an unknown name; the loader's errors for what
    lies at `path`.
    """
    if name not in DATASETS:
        raise ValueError(
            f'dataset: expected one of {", ".join(sorted(DATASETS))}. Received: {name!r}'
        )
    return DATASETS[name](path)


__all__ = [
    'DATASETS',
    'ArraySource',
    'BatchStream',
    'DataSpec',
    'Dataset',
    'Preprocessing',
    'Source',
    'load',
    'mean_image',
    'padded_batches',
    'part_of',
]
