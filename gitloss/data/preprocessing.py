"""Kinds of preprocessing: from pixels to the input of a network."""

from __future__ import annotations

from gitloss.data.source import Dataset, Preprocessing, mean_image
from gitloss.errors import check_choice

PREPROCESSINGS = ('auto', 'mean_image', 'centered')
CENTERED = Preprocessing(128.0, 127.5 / 128.0)  # (pixels - 127.5) / 128, exact in float32


def preprocessed(dataset: Dataset, name: str) -> Dataset:
    """The data set with a kind of preprocessing.

    Args:
      dataset: has the split `train`.
      name: auto: that of the loader; mean_image: pixels / 255 minus their mean over the training
        images, all of which are read; centered: (pixels - 127.5) / 128.

    Raises:
      ValueError: unknown name, or no split `train`.
    """
    if check_choice('preprocessing', name, PREPROCESSINGS) == 'auto':
        return dataset
    dataset.require('train')
    chosen = CENTERED
    if name == 'mean_image':
        chosen = Preprocessing(mean=mean_image(dataset.train))  # type: ignore[arg-type]
    return dataset._replace(spec=dataset.spec._replace(preprocessing=chosen))
