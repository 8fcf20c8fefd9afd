"""From a source of all images to a data set: identities are chosen, broken images left out, the
rest is split into training, validation and test.

Equal data and settings give equal splits, on every worker and in a resumed run.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Iterator, NamedTuple, Sequence, Tuple

import numpy as np

from gitloss.data import checking
from gitloss.data.images import ImageSource
from gitloss.data.listing import line
from gitloss.data.preprocessing import CENTERED
from gitloss.data.source import SPLITS, Dataset, DataSpec
from gitloss.data.subset import Subset
from gitloss.errors import check, log, one_line


# Files of a run: the name of each class, a line each; the images that are left out.
LABELS, BROKEN = 'labels.txt', 'broken.txt'


class ImageSettings(NamedTuple):
    """What is read of a source of images. The fields are the options of the same names, except for

    image_shape: (height, width, channels) that images are scaled to.
    classes: identities that have the first labels, in their order, whatever the training images
      are: those of a checkpoint.
    broken: the broken.txt of the run that continues or is evaluated; '' without one.
    """

    image_shape: Tuple[int, ...] = (112, 112, 3)
    min_images: int = 1
    max_classes: int = 0
    split: str = 'image'
    valid_fraction: float = 0.1
    test_fraction: float = 0.1
    check_images: bool = True
    max_broken: int = 0
    seed: int = 1
    classes: Sequence[str] = ()
    broken: str = ''


class Kind(NamedTuple):
    """A kind of image data.

    open: (path, image_shape) -> ImageSource of all images at the path.
    endings: of the names of files that hold a split with --split=given.
    """

    open: Callable[[str, Tuple[int, ...]], ImageSource]
    endings: Tuple[str, ...] = ()


_Splits = Dict[str, Subset]  # of the splits that --split=given names; else all images as `train`


def _places(path: str, kind: Kind) -> dict[str, str]:
    """{split: path} of the splits that lie at `path`."""
    found = {}
    for split in SPLITS:
        names = ('valid', 'val') if split == 'valid' else (split,)
        candidates = [name + ending for name in names for ending in ('', *kind.endings)]
        paths = (os.path.join(path, name) for name in candidates)
        place = next(filter(os.path.exists, paths), None)
        if place:
            found[split] = place
    endings = f', also with {" or ".join(kind.endings)}' if kind.endings else ''
    expected = f'train, valid, val or test{endings} in {one_line(path)} with --split=given'
    check(found, '--data_path', expected, 'none of them')
    return found


def _opened(path: str, kind: Kind, settings: ImageSettings) -> tuple[_Splits, list[str]]:
    """(all images, names of their labels): those of the training first, in the order of the source,
    then those of the other splits.
    """
    places = _places(path, kind) if settings.split == 'given' else {'train': path}
    numbers: dict[str, int] = {}
    pool = {}
    for split, place in places.items():
        source = kind.open(place, settings.image_shape)
        for name in source.names:
            is_line = name == one_line(name, len(name))
            check(is_line, '--data_path', 'printable names of identities', one_line(repr(name)))
        labels = np.array([numbers.setdefault(name, len(numbers)) for name in source.names])
        everything = np.arange(len(source), dtype=np.int64)
        pool[split] = Subset(source, everything, labels[source.labels], source.fingerprint)
    return pool, list(numbers)


def _chosen(pool: _Splits, count: int, settings: ImageSettings) -> _Splits:
    """Without the identities that --min_images and --max_classes leave out, in all splits. Of
    identities without training images all images stay.
    """
    if 'train' not in pool:
        return pool
    counts = np.bincount(pool['train'].labels, minlength=count)
    stays = counts >= max(settings.min_images, 1)
    largest_first = np.argsort(np.where(stays, -counts, 0), kind='stable')
    stays[largest_first[settings.max_classes or count :]] = False
    limits = f'--min_images={settings.min_images} and --max_classes={settings.max_classes}'
    received = f'{stays.sum()}; the largest of {np.sum(counts > 0)} has {counts.max()} images'
    check(stays.sum() > 1, '--data_path', f'two identities or more with {limits}', received)
    left_out = (counts > 0) & ~stays
    return {split: images.part(~left_out[images.labels]) for split, images in pool.items()}


def _rounded(fraction: float, counts: Any) -> Any:
    return np.floor(fraction * np.asarray(counts) + 0.5).astype(np.int64)


def _by_image(labels: np.ndarray, settings: ImageSettings) -> np.ndarray:
    """The split of each image, 0 to 2 in the order of SPLITS: the same fractions of each identity,
    rounded, at least one image of which stays in training.
    """
    order = np.lexsort((np.random.RandomState(settings.seed).permutation(len(labels)), labels))
    counts = np.bincount(labels)
    place = np.empty(len(labels), np.int64)  # of an image among those of its identity
    place[order] = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    valid = np.minimum(_rounded(settings.valid_fraction, counts), counts - 1)
    test = np.minimum(_rounded(settings.test_fraction, counts), counts - 1 - valid)
    return (place < (valid + test)[labels]) * np.where(place < valid[labels], 1, 2)


def _by_identity(labels: np.ndarray, settings: ImageSettings) -> np.ndarray:
    """The split of each image: that of its identity. Two identities at least stay in training."""
    present, places = np.unique(labels, return_inverse=True)
    count = len(present)
    valid = min(int(_rounded(settings.valid_fraction, count)), count - 2)
    test = min(int(_rounded(settings.test_fraction, count)), count - 2 - valid)
    splits = np.repeat([1, 2, 0], [valid, test, count - valid - test])
    return splits[np.random.RandomState(settings.seed).permutation(count)][places]


def _split(images: Subset, settings: ImageSettings) -> _Splits:
    of_each = {'image': _by_image, 'identity': _by_identity}[settings.split]
    parts = of_each(images.labels, settings)
    splits = {name: images.part(parts == part) for part, name in enumerate(SPLITS)}
    for name in ('valid', 'test'):
        fraction = getattr(settings, f'{name}_fraction')
        if fraction and not len(splits[name]):
            log.warning('--%s_fraction=%g: too few images; none is held out', name, fraction)
    return splits


def load_images(name: str, kind: Kind, path: str, settings: ImageSettings) -> Dataset:
    """Loads a data set of images.

    Args:
      name: of the kind, for the DataSpec.
      kind: the kind of data at `path`.
      path: as --data_path.
      settings: what is read.

    Returns:
      A Dataset. The identities of its training split are the labels from 0 on; those of the other
      splits alone come after them, and are no classes.

    Raises:
      ValueError: no images, a single identity, or more broken images than accepted.
      OSError: the folder or the index of the images cannot be read.
    """
    check(path, '--data_path', f'the images of --dataset={name}', 'none')
    pool, names = _opened(path, kind, settings)
    pool = _chosen(pool, len(names), settings)
    most = settings.max_broken if settings.check_images else None
    pool, broken = checking.without_broken(pool, names, most, settings.broken)
    pool = _chosen(pool, len(names), settings)
    splits = pool if settings.split == 'given' else _split(pool['train'], settings)
    splits = {split: images for split, images in splits.items() if len(images)}
    present = {
        split: [names[label] for label in np.unique(images.labels)]
        for split, images in splits.items()
    }
    classes = list(settings.classes) or present.get('train', [])
    ordered = dict.fromkeys([*classes, *sum(present.values(), [])])
    numbers = {name: label for label, name in enumerate(ordered)}
    labels = np.array([numbers.get(name, -1) for name in names], np.int32)
    return Dataset(
        DataSpec(name, settings.image_shape, len(classes), CENTERED),
        names=tuple(ordered),
        broken=broken,
        **{split: images.relabelled(labels) for split, images in splits.items()},
    )


def files_of_run(dataset: Dataset) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files that keep the names and the splits of a run: `labels.txt`, the
    name of each class; `train.list`, `valid.list` and `test.list`, the images of each split, which
    --dataset=list reads if each has a file of its own; `broken.txt`, the images left out.
    """
    classes = dataset.names[: dataset.spec.num_classes]
    texts = {LABELS: ''.join(name + '\n' for name in classes), BROKEN: dataset.broken}
    for split in SPLITS:
        images = getattr(dataset, split)
        if isinstance(images, Subset):
            texts[f'{split}.list'] = ''.join(
                line(os.path.abspath(images.where(index)), dataset.names[label])
                for index, label in enumerate(images.labels)
            )
    for name, text in texts.items():
        if text:
            yield name, text.encode('utf-8', 'surrogateescape')
