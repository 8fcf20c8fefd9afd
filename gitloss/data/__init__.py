"""Data sets, read by index through Sources, and the deterministic stream of training batches."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable

from gitloss.data import folder, listing, mnist, recordio, tfrecord
from gitloss.data.preprocessing import CENTERED, PREPROCESSINGS, preprocessed
from gitloss.data.sampling import Balanced, Sampler, Shuffled, sampler
from gitloss.data.selection import (
    BROKEN,
    LABELS,
    ImageSettings,
    Kind,
    files_of_run,
    load_images,
)
from gitloss.data.source import ArraySource, Dataset, DataSpec, Preprocessing, Source, mean_image
from gitloss.data.subset import Subset, View
from gitloss.errors import check_choice

if TYPE_CHECKING:
    from gitloss.data.batches import BatchStream, padded_batches, part_of

IMAGES = {
    'folder': Kind(folder.open_folder),
    'list': Kind(listing.open_list, ('.list', '.txt', '.tsv')),
    'recordio': Kind(recordio.open_recordio, ('.rec',)),
    'tfrecord': Kind(tfrecord.open_tfrecord, ('.tfrecord',)),
}
# Values of --dataset: functions from --data_path and ImageSettings to a Dataset.
DATASETS: dict[str, Callable[[str, ImageSettings], Dataset]] = {
    'mnist': mnist.load_mnist,
    **{name: functools.partial(load_images, name, kind) for name, kind in IMAGES.items()},
}


def load(name: str, path: str, settings: ImageSettings | None = None) -> Dataset:
    """Loads a data set by name.

    Args:
      name: as --dataset.
      path: as --data_path.
      settings: what is read of images, None for the defaults; mnist has rules of its own.

    Raises:
      ValueError: unknown name, or the loader rejects the data at `path`.
      OSError: a file cannot be read.
    """
    return DATASETS[check_choice('dataset', name, sorted(DATASETS))](
        path, settings or ImageSettings()
    )


def __getattr__(name: str) -> Any:
    """What imports TensorFlow, on first use: pairs and embeddings in files need none."""
    if name in ('BatchStream', 'padded_batches', 'part_of'):
        from gitloss.data import batches

        return getattr(batches, name)
    raise AttributeError(f"module 'gitloss.data' has no attribute {name!r}")


__all__ = [
    'BROKEN',
    'CENTERED',
    'DATASETS',
    'IMAGES',
    'LABELS',
    'PREPROCESSINGS',
    'ArraySource',
    'Balanced',
    'BatchStream',
    'DataSpec',
    'Dataset',
    'ImageSettings',
    'Kind',
    'Preprocessing',
    'Sampler',
    'Shuffled',
    'Source',
    'Subset',
    'View',
    'files_of_run',
    'load',
    'load_images',
    'mean_image',
    'padded_batches',
    'part_of',
    'preprocessed',
    'sampler',
]
