"""The files that TensorBoard's page Projector reads from a run's folder."""

from __future__ import annotations

import io
import os
from typing import Sequence

import numpy as np
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import EmbeddingInfo, ProjectorConfig

from gitloss import metrics
from gitloss.data.source import Source
from gitloss.files import write_atomically

_POINTS = 1000  # the page still moves smoothly
_THUMBNAIL = 48  # pixels at most
_FOLDER = 'projector'  # names in the configuration are relative: the run's folder can be moved


def sprite(images: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """One picture of all thumbnails, row by row in a square of ceil(sqrt(n)) a side.

    Args:
      images: uint8 [n, height, width, channels]. Three channels are red, green and blue; of any
        other number the first one is shown.

    Returns:
      (bytes of a PNG file, (width, height) of a thumbnail in pixels).
    """
    count, height, width, channels = images.shape
    shrink = min(1.0, _THUMBNAIL / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    side = int(np.ceil(np.sqrt(count)))
    sheet = Image.new('RGB' if channels == 3 else 'L', (side * size[0], side * size[1]))
    for number, pixels in enumerate(images):
        row, column = divmod(number, side)
        shown = np.ascontiguousarray(pixels if channels == 3 else pixels[..., 0])
        thumbnail = Image.fromarray(shown)
        if shrink < 1:
            thumbnail = thumbnail.resize(size, Image.BILINEAR)  # type: ignore[attr-defined]
        sheet.paste(thumbnail, (column * size[0], row * size[1]))
    buffer = io.BytesIO()
    sheet.save(buffer, format='PNG')
    return buffer.getvalue(), size


def _lines(rows):
    return ''.join('\t'.join(map(str, row)) + '\n' for row in rows)


class Projector:
    """Writes `projector/` and `projector_config.pbtxt` into a run's folder.

    Args:
      run_dir: the run's folder.
      source: its images become thumbnails; None: there are none.
    """

    def __init__(self, run_dir: str, source: Source | None = None) -> None:
        self._run_dir, self._source = run_dir, source
        # Of a thumbnail. The sprite is written once: the images stay the same.
        self._size: tuple[int, int] | None = None

    def write(
        self,
        name: str,
        embeddings: np.ndarray,
        labels: Sequence[int],
        predictions: Sequence[int],
        numbers: Sequence[int],
    ) -> None:
        """Replaces what the page shows by at most 1000 of k samples, evenly spaced.

        Args:
          name: the embeddings' name on the page.
          embeddings: float [k, dim]; zeros are added up to three dimensions.
          labels, predictions: int [k].
          numbers: int [k], indices of the samples in the source.
        """
        rows = metrics.evenly_spaced(len(labels), _POINTS)
        folder = os.path.join(self._run_dir, _FOLDER)
        if not os.path.isdir(folder):
            os.mkdir(folder)  # and not the run's folder: whoever removed that wants it gone
        points = np.asarray(embeddings, np.float32)[rows]
        if points.shape[1] < 3:  # the page turns two dimensions into NaN and shows nothing
            points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])), 'constant')
        self._write('embeddings.tsv', _lines([f'{one:.6g}' for one in row] for row in points))
        chosen = np.asarray(numbers)[rows]
        columns = zip(np.asarray(labels)[rows], np.asarray(predictions)[rows], chosen)
        table = [(label, guess, int(label == guess), number) for label, guess, number in columns]
        self._write('metadata.tsv', _lines([('label', 'predicted', 'right', 'number'), *table]))
        if self._source is not None and self._size is None:
            content, size = sprite(self._source.images(chosen))
            self._write('sprite.png', content)
            self._size = size
        self._configure(name)

    def _write(self, name: str, content: str | bytes) -> None:
        write_atomically(os.path.join(self._run_dir, _FOLDER, name), content)

    def _configure(self, name: str) -> None:
        shown = EmbeddingInfo(
            tensor_name=name,
            tensor_path=_FOLDER + '/embeddings.tsv',
            metadata_path=_FOLDER + '/metadata.tsv',
        )
        if self._size:
            shown.sprite.image_path = _FOLDER + '/sprite.png'
            shown.sprite.single_image_dim.extend(self._size)
        write_atomically(
            os.path.join(self._run_dir, 'projector_config.pbtxt'),
            str(ProjectorConfig(embeddings=[shown])),
        )
