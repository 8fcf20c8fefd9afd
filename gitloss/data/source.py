"""Descriptions of data sets, and Sources, which read the images of a split by index.

To add a kind of data, write a subclass of Source and a loader that returns a Dataset, in a new
file, and register the loader in `gitloss.data.DATASETS`.
"""

from __future__ import annotations

import abc
import hashlib
from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from gitloss.errors import check, one_line

SPLITS = ('train', 'valid', 'test')
_BLOCK_BYTES = 16 << 20  # pixels per read while a whole split is traversed


class Preprocessing(NamedTuple):
    """Input of the network = pixels / divisor - mean.

    mean: float32 [height, width, channels], or one number for all pixels; None is zero. A
    checkpoint has it as the weight `preprocess/mean_image`.
    """

    divisor: float = 255.0
    mean: np.ndarray | float | None = None


class DataSpec(NamedTuple):
    """What a graph depends on in a data set. image_shape: (height, width, channels)."""

    name: str
    image_shape: tuple[int, ...]
    num_classes: int
    preprocessing: Preprocessing = Preprocessing()

    def facts(self) -> dict[str, Any]:
        """Plain JSON values for a checkpoint's manifest, without the mean."""
        return {
            'name': self.name,
            'image_shape': list(self.image_shape),
            'num_classes': self.num_classes,
            'preprocessing': {'divisor': self.preprocessing.divisor},
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> DataSpec:
        """The DataSpec of `facts`; its mean is zero until the weights are restored.

        Raises:
          ValueError: a key is missing or a value is invalid.
        """
        try:
            shape, classes = tuple(facts['image_shape']), facts['num_classes']
            name, divisor = str(facts['name']), float(facts['preprocessing']['divisor'])
            is_valid = (
                len(shape) == 3
                and all(type(size) is int and 0 < size < 1 << 31 for size in (*shape, classes))
                and 2.0**-126 <= divisor < 2.0**128  # a number of float32
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            is_valid = False
        check(
            is_valid,
            'facts of the data set',
            'name, image_shape [height, width, channels], num_classes and preprocessing',
            one_line(repr(facts), 200),
        )
        return cls(name, shape, classes, Preprocessing(divisor))


class Source:
    """One split of a data set: labels in memory (or in a memory map), images read by index.

    Batches are a function of (seed, step): any image can be read at any time, and by several
    threads at once. A subclass sets `labels` and `image_shape` and defines `read`; if `read`
    returns encoded images, it also defines `decode` and `images`.

    Attributes:
      labels: int32 [n].
      image_shape: (height, width, channels).
      parallel: whether reading takes so long that several batches are read at once.
    """

    labels: np.ndarray
    image_shape: tuple[int, ...]
    parallel: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def read(self, indices: np.ndarray) -> np.ndarray:
        """The images `indices`, int64 [k], as they are stored: pixels, uint8 [k, height, width,
        channels], or encoded images, an object array [k] of bytes.
        """

    def decode(self, raw: Any) -> Any:
        """The pixels, a tensor uint8 [k, height, width, channels], of the tensor `raw`, which is
        the result of `read` (uint8, or strings [k]). A tf.data pipeline calls it.
        """
        return raw

    def images(self, indices: np.ndarray) -> np.ndarray:
        """The pixels of the images `indices` on the host: uint8 [k, height, width, channels]."""
        return self.read(indices)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over images and labels as they are stored; reads them all. A run takes it once.

        A subclass that is slow to read may override it; equal fingerprints mean equal data.
        """
        digest = hashlib.sha256()
        for indices in blocks(self):
            raw = self.read(indices)
            digest.update(b''.join(raw) if raw.dtype == object else raw.tobytes())
            digest.update(self.labels[indices].tobytes())
        return digest.hexdigest()


class ArraySource(Source):
    """A split in arrays or memory maps.

    Args:
      images: uint8 [n, height, width, channels].
      labels: integers [n].

    Raises:
      ValueError: wrong dtype or rank, or the counts differ.
    """

    parallel = False

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        check(
            images.dtype == np.uint8 and images.ndim == 4 and labels.shape == images.shape[:1],
            'images and labels',
            'uint8 [n, height, width, channels] and integers [n]',
            f'{images.dtype} {list(images.shape)} and {list(labels.shape)}',
        )
        # asarray: indexing a view of a memory map returns plain arrays.
        self._images, self.labels = np.asarray(images), np.asarray(labels, np.int32)
        self.image_shape = self._images.shape[1:]

    def read(self, indices: np.ndarray) -> np.ndarray:
        return self._images[indices]


class Dataset(NamedTuple):
    """A DataSpec and the splits; a missing split is None.

    names: the name of each label, those of the classes first; () if labels have no names.
    broken: a text about the images that were left out, see gitloss.data.checking.
    """

    spec: DataSpec
    train: Source | None = None
    valid: Source | None = None
    test: Source | None = None
    names: Sequence[str] = ()
    broken: str = ''

    def require(self, *names: str) -> None:
        """Raises ValueError if one of the splits `names` is missing."""
        present = [name for name in SPLITS if getattr(self, name) is not None]
        check(
            set(names) <= set(present),
            '--data_path',
            f'a data set with the splits {", ".join(names)}',
            f'one with {", ".join(present) or "none"}',
        )

    def facts(self) -> dict[str, Any]:
        """What a checkpoint records of its training data: the spec's facts, and the fingerprints of
        the splits that influence the run.
        """
        return dict(
            self.spec.facts(),
            fingerprint=' '.join(
                split.fingerprint for split in (self.train, self.valid) if split is not None
            ),
        )


def blocks(source: Source) -> Iterator[np.ndarray]:
    """Indices of a source in order, in blocks int64 [k] of 16 MiB of pixels or one image."""
    size = max(1, _BLOCK_BYTES // int(np.prod(source.image_shape)))
    for start in range(0, len(source), size):
        yield np.arange(start, min(start + size, len(source)))


def mean_image(source: Source, divisor: float = 255.0) -> np.ndarray:
    """Mean of a source's images in units of pixels / divisor: float32 [height, width, channels].

    The sums are integers: only the result is rounded.
    """
    sums = np.zeros(source.image_shape, np.int64)
    for indices in blocks(source):
        sums += source.images(indices).sum(axis=0, dtype=np.int64)
    return (sums / (divisor * len(source))).astype(np.float32)
