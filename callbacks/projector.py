"""Files for TensorBoard's Projector, which reads them from the folder of the event files."""

from __future__ import annotations

import io
from typing import Any, Callable, Iterable

import numpy as np
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import EmbeddingInfo, ProjectorConfig

from gitloss import metrics
from gitloss.data.source import Source

_POINTS = 1000  # that the Projector rotates smoothly
_THUMBNAIL = 48  # maximum size in pixels
# Paths in the configuration are relative, so that the run's folder can be moved.
_FOLDER = 'projector'


def sprite(images: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """One picture of all thumbnails, row by row in a square of ceil(sqrt(n)) x ceil(sqrt(n)).

    Args:
      images: uint8 [n, height, width, channels]. Three channels are red, green, blue; of any other
        number, the first channel is used.

    Returns:
      (bytes of a PNG file, width and height of one thumbnail in pixels).
    """
    count, height, width, channels = images.shape
    shrink = min(1.0, _THUMBNAIL / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    side = int(np.ceil(np.sqrt(count)))
    sheet = Image.new('RGB' if channels == 3 else 'L', (side * size[0], side * size[1]))
    for number, pixels in enumerate(images if channels == 3 else images[..., 0]):
        row, column = divmod(number, side)
        thumbnail = Image.fromarray(np.ascontiguousarray(pixels))
        sheet.paste(
            thumbnail.resize(size, Image.Resampling.BILINEAR), (column * size[0], row * size[1])
        )
    buffer = io.BytesIO()
    sheet.save(buffer, format='PNG')
    return buffer.getvalue(), size


def _lines(rows: Iterable[Iterable[Any]]) -> str:
    return ''.join('\t'.join(map(str, row)) + '\n' for row in rows)


class Projector:
    """Writes `projector/` and `projector_config.pbtxt` into a run's folder.

    Args:
      write: as RunHandle.write.
      source: the Source of the images for thumbnails.
    """

    def __init__(self, write: Callable[[str, str | bytes], None], source: Source) -> None:
        self._write, self._source = write, source
        self._size: Any = None  # of a thumbnail; the sprite never changes and is written once

    def write(
        self,
        name: str,
        embeddings: np.ndarray,
        labels: np.ndarray,
        predictions: np.ndarray,
        numbers: np.ndarray,
    ) -> None:
        """Replaces the displayed embeddings by at most 1000 of these samples, evenly spaced.

        Args:
          name: the displayed name of the embeddings.
          embeddings: float [k, dim], padded with zeros to three dimensions.
          labels, predictions: int [k].
          numbers: int [k], indices of the samples in the source.
        """
        chosen = metrics.evenly_spaced(len(labels), _POINTS)
        points = np.asarray(embeddings, np.float32)[chosen]
        # With two dimensions the Projector computes NaN.
        points = np.pad(points, ((0, 0), (0, max(0, 3 - points.shape[1]))), 'constant')
        self._write(
            _FOLDER + '/embeddings.tsv',
            _lines([f'{value:.6g}' for value in point] for point in points),
        )
        columns = np.stack([labels, predictions, np.equal(labels, predictions), numbers], axis=1)
        self._write(
            _FOLDER + '/metadata.tsv',
            _lines([('label', 'predicted', 'right', 'number'), *columns[chosen]]),
        )
        if self._size is None:
            content, size = sprite(self._source.images(np.asarray(numbers)[chosen]))
            self._write(_FOLDER + '/sprite.png', content)
            self._size = size
        self._configure(name)

    def _configure(self, name: str) -> None:
        shown = EmbeddingInfo(
            tensor_name=name,
            tensor_path=_FOLDER + '/embeddings.tsv',
            metadata_path=_FOLDER + '/metadata.tsv',
            sprite={'image_path': _FOLDER + '/sprite.png', 'single_image_dim': self._size},
        )
        self._write('projector_config.pbtxt', str(ProjectorConfig(embeddings=[shown])))
