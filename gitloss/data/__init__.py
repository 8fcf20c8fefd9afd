"""Data sets and the deterministic stream of training batches."""
from __future__ import annotations

from gitloss.data.mnist import Dataset, Split, load_mnist
from gitloss.data.stream import BatchStream, padded_batches, part_of

DATASETS = {'mnist': load_mnist}


def load(name, path):
    """Loads a data set by name. Raises ValueError for an unknown name; the loader's errors for what
    lies at `path`.
    """
    if name not in DATASETS:
        raise ValueError('dataset: expected one of %s. Received: %r' % (', '.join(sorted(DATASETS)), name))
    return DATASETS[name](path)


__all__ = ['BatchStream', 'DATASETS', 'Dataset', 'Split', 'load', 'load_mnist', 'padded_batches', 'part_of']
