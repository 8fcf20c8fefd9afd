"""Images of a run: to compare exported files with their checkpoint, and to calibrate int8."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from gitloss.data import Dataset
from gitloss.data.source import SPLITS
from gitloss.errors import check, reason
from gitloss.metrics import evenly_spaced
from trainers import checkpoints, loading
from trainers.options import Options

COMPARED = 256  # images at most
_CALIBRATING = 128


class Samples(NamedTuple):
    """Images to compare on.

    images: uint8 [n, height, width, channels].
    labels: int32 [n]; None: not known, or not of the classes of the checkpoint.
    text: what they are.
    """

    images: np.ndarray
    labels: np.ndarray | None
    text: str


class RunImages:
    """The images of the run of a checkpoint, or those of --data_path.

    Without --data_path, data that cannot be read are replaced by random images.

    Raises:
      ValueError: the data of --data_path are refused; OSError: they cannot be read.
    """

    def __init__(self, options: Options, checkpoint: checkpoints.Checkpoint) -> None:
        self._options, self._spec = options, checkpoints.spec_of(checkpoint)
        saved = checkpoints.options_of(checkpoint)
        settings = options.with_saved(saved.as_dict(), 'export')
        self._seed, self._dataset, self._lost = saved.seed, None, ''
        # A few images are read: all of them need not be checked.
        settings = dataclasses.replace(settings, data_path=options.data_path or saved.data_path)
        if settings.dataset != 'mnist':
            settings = dataclasses.replace(settings, check_images=False)
        try:
            self._dataset = self._checked(loading.dataset_to_measure(settings, checkpoint))
        except (ValueError, OSError) as error:
            if options.data_path:
                raise
            self._lost = reason(error)

    def _checked(self, dataset: Dataset) -> Dataset:
        shape = self._spec.image_shape
        found = dataset.spec.image_shape
        check(found == shape, '--data_path', f'images of the shape {shape}', found)
        return dataset

    def compared(self) -> Samples:
        """At most 256 test images, evenly spaced; else validation images, else training images."""
        for split in reversed(SPLITS):
            source = getattr(self._dataset, split, None)
            if source is not None and not self._lost:
                try:
                    return self._of(source, split)
                except (ValueError, OSError) as error:
                    if self._options.data_path:
                        raise
                    self._lost = reason(error)
        random = np.random.RandomState(self._seed)
        images = random.randint(0, 256, (64, *self._spec.image_shape)).astype(np.uint8)
        return Samples(images, None, f'random images, since {self._lost or "there are no data"}')

    def _of(self, source: Any, split: str) -> Samples:
        assert self._dataset is not None
        chosen = evenly_spaced(len(source), COMPARED)
        images, labels = source.images(chosen), source.labels[chosen]
        classes = self._spec.num_classes
        is_known = self._dataset.spec.num_classes == classes and labels.max() < classes
        return Samples(images, labels if is_known else None, f'{split} images')

    def calibrating(self) -> np.ndarray:
        """128 training images, uint8 [n, height, width, channels], drawn by the seed of the run.

        Raises:
          ValueError: there are none.
        """
        source = getattr(self._dataset, 'train', None)
        received = self._lost or 'none'
        if source is None or self._lost:
            raise ValueError(
                f'--format=tflite_int8: expected training images to calibrate with. '
                f'Received: {received}'
            )
        random, count = np.random.RandomState(self._seed), min(len(source), _CALIBRATING)
        return source.images(np.sort(random.choice(len(source), count, replace=False)))
