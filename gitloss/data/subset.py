"""Some samples of a source, in an order and with labels of their own."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from gitloss.data.images import ImageSource
from gitloss.data.source import Source


class View(Source):
    """Some samples of any Source, to be swept. It has no fingerprint.

    Args:
      source: has the samples.
      indices: int64 [n], the samples in the source, in the order of the view.
      labels: int [n]; None: those of the source.
    """

    def __init__(
        self, source: Source, indices: np.ndarray, labels: np.ndarray | None = None
    ) -> None:
        self._source: Any = source
        self._indices = indices
        self.labels = np.asarray(source.labels[indices] if labels is None else labels, np.int32)
        self.image_shape, self.parallel = source.image_shape, source.parallel

    def read(self, indices: np.ndarray) -> np.ndarray:
        return self._source.read(self._indices[indices])

    def decode(self, raw: Any) -> Any:
        return self._source.decode(raw)

    def images(self, indices: np.ndarray) -> np.ndarray:
        return self._source.images(self._indices[indices])


class Subset(View):
    """Some images of an ImageSource, with labels of their own.

    Args:
      source: has the images.
      indices: int64 [n], the images in the source.
      labels: int [n].
      data: the fingerprint of the source.
    """

    def __init__(
        self, source: ImageSource, indices: np.ndarray, labels: np.ndarray, data: str
    ) -> None:
        super().__init__(source, indices, labels)
        self._data = data

    def encoded(self, index: int) -> bytes:
        """As of the source."""
        return self._source.encoded(int(self._indices[index]))

    def where(self, index: int) -> str:
        """As of the source."""
        return self._source.where(int(self._indices[index]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the fingerprint of the source, the chosen indices and the labels."""
        parts = (self._data.encode('ascii'), self._indices.tobytes(), self.labels.tobytes())
        return hashlib.sha256(b''.join(parts)).hexdigest()

    def part(self, chosen: np.ndarray) -> Subset:
        """The images where `chosen`, bool [n], is true."""
        return Subset(self._source, self._indices[chosen], self.labels[chosen], self._data)

    def relabelled(self, labels: np.ndarray) -> Subset:
        """The same images; label i becomes labels[i]."""
        return Subset(self._source, self._indices, labels[self.labels], self._data)
