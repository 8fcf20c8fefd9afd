"""Options -> the data set of a run, or of the run that a checkpoint is of."""

from __future__ import annotations

import dataclasses
import os
from typing import Sequence

from gitloss import data, files
from gitloss.data import augmentation
from gitloss.errors import check_choice
from trainers import checkpoints
from trainers.options import Options


def dataset_to_train(options: Options) -> data.Dataset:
    """The data set of a run. One that continues leaves out the images that it left out before.

    Raises:
      ValueError: an unknown kind of data or augmentation, or data that are refused.
      OSError: they cannot be read.
    """
    augmentation.parse(options.augment)  # a mistake is told before the data are read
    store = checkpoints.CheckpointStore(os.path.join(options.run_dir, 'ckpt'))
    continues = options.resume != 'never' and store.paths()
    dataset = _loaded(options, broken=_text(options.run_dir, data.BROKEN) if continues else '')
    return data.preprocessed(dataset, options.preprocessing)


def dataset_to_measure(options: Options, checkpoint: checkpoints.Checkpoint) -> data.Dataset:
    """The data set on which a checkpoint is measured: its identities keep their labels, and the
    images that its run left out are left out if the data are the same.

    Args:
      options: those of the checkpoint, see `Options.with_saved`. Without --data_path, images are
        those of the run.

    Raises:
      ValueError: an unknown kind of data, or data that are refused.
      OSError: they cannot be read.
    """
    if not options.data_folder:
        saved = checkpoints.options_of(checkpoint).data_path
        options = dataclasses.replace(options, data_path=saved)
    broken = _text(checkpoints.run_of(checkpoint.path), data.BROKEN)
    return _loaded(options, broken=broken, classes=classes_of(checkpoint))


def classes_of(checkpoint: checkpoints.Checkpoint) -> list[str]:
    """The names of the classes of a checkpoint; [] if they have none, or the run is gone."""
    return classes_in(checkpoints.run_of(checkpoint.path))


def classes_in(folder: str) -> list[str]:
    """The names of the classes that a run or an export has in its folder; [] if there are none."""
    return _text(folder, data.LABELS).split('\n')[:-1]


def _text(run: str, name: str) -> str:
    """A file of a run; '' if there is none, or no run."""
    path = os.path.join(run, name)
    is_there = run and os.path.isfile(path)
    return files.read(path).decode('utf-8', 'surrogateescape') if is_there else ''


def _loaded(options: Options, broken: str, classes: Sequence[str] = ()) -> data.Dataset:
    check_choice('--dataset', options.dataset, sorted(data.DATASETS))
    fields = [name for name in data.ImageSettings._fields if hasattr(options, name)]
    own = {name: getattr(options, name) for name in fields}
    settings = data.ImageSettings(**own, broken=broken, classes=classes)
    return data.load(options.dataset, options.data_folder, settings)
