"""Data sets, read by index through Sources, and the deterministic stream of training batches."""

from __future__ import annotations

from gitloss.data import mnist
from gitloss.data.batches import BatchStream, padded_batches, part_of
from gitloss.data.sampling import Balanced, Sampler, Shuffled, sampler
from gitloss.data.source import ArraySource, Dataset, DataSpec, Preprocessing, Source, mean_image
from gitloss.errors import check_choice

# Values of --dataset: functions from --data_path to a Dataset.
DATASETS = {
    'mnist': mnist.load_mnist,
}


def load(name: str, path: str) -> Dataset:
    """Loads a data set by name.

    Raises:
      ValueError: unknown name, or the loader rejects the data at `path`.
      OSError: a file cannot be read.
    """
    return DATASETS[check_choice('dataset', name, sorted(DATASETS))](path)


__all__ = [
    'DATASETS',
    'ArraySource',
    'Balanced',
    'BatchStream',
    'DataSpec',
    'Dataset',
    'Preprocessing',
    'Sampler',
    'Shuffled',
    'Source',
    'load',
    'mean_image',
    'padded_batches',
    'part_of',
    'sampler',
]
