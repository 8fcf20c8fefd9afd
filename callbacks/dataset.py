"""The names of the classes and the splits of a run, in files that outlive it."""

from __future__ import annotations

from typing import Any

from callbacks.base import Callback
from gitloss.data import Dataset, files_of_run


class DatasetFiles(Callback):
    """Writes `labels.txt`, `train.list`, `valid.list`, `test.list` and `broken.txt` into the run's
    folder, before the first step; of images in files only.
    """

    chief_only = True

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def on_train_begin(self, logs: Any = None) -> None:
        for name, content in files_of_run(self._dataset):
            self.handle.write(name, content)
