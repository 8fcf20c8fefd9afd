"""Files for the page "Projector" of TensorBoard, which reads them from the run's folder beside the
events.
"""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import EmbeddingInfo, ProjectorConfig

from gitloss import metrics
from gitloss.files import write_atomically

_POINTS = 1000  # the page moves that many at ease
_THUMBNAIL = 48  # pixels at most
_FOLDER = 'projector'  # names in the configuration are relative: the run's folder can be moved


def sprite(images):
    """One picture of all thumbnails, row by row in a square of ceil(sqrt(n)) each way.

    Args:
      images: uint8 [n, height, width, channels]; three channels are red, green, blue, of any other
        number the first is taken.

    Returns:
      (bytes of a PNG file, width and height of one thumbnail in pixels).
    """
    count, height, width, channels = images.shape
    shrink = min(1.0, _THUMBNAIL / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    side = int(np.ceil(np.sqrt(count)))
    sheet = Image.new('RGB' if channels == 3 else 'L', (side * size[0], side * size[1]))
    for number, pixels in enumerate(images):
        row, column = divmod(number, side)
        thumbnail = Image.fromarray(
            np.ascontiguousarray(pixels if channels == 3 else pixels[..., 0])
        )
        sheet.paste(
            thumbnail if shrink == 1 else thumbnail.resize(size, Image.BILINEAR),
            (column * size[0], row * size[1]),
        )
    buffer = io.BytesIO()
    sheet.save(buffer, format='PNG')
    return buffer.getvalue(), size


def _lines(rows):
    return ''.join('\t'.join(row) + '\n' for row in rows)


class Projector:
    """Writes `projector/` and `projector_config.pbtxt` into a run's folder.

    Args:
      run_dir: the run's folder.
      source: the Source whose images become thumbnails; None for none.
    """

    def __init__(self, run_dir, source=None):
        self._run_dir, self._source = run_dir, source
        self._size = None  # of a thumbnail; the sprite is written once, the images stay the same

    def write(self, name, embeddings, labels, predictions, numbers):
        """Replaces what the page shows.

        Args:
          name: the embeddings' name on the page.
          embeddings: float [k, dim], filled up with zeros to three dimensions; labels, predictions:
            int [k]; numbers: int [k], those of the samples in the source. A choice of 1000 is
            written.
        """
        rows = metrics.evenly_spaced(len(labels), _POINTS)
        folder = os.path.join(self._run_dir, _FOLDER)
        if not os.path.isdir(folder):
            os.mkdir(folder)  # not the run's folder: if that is gone, somebody wanted it gone
        points = np.asarray(embeddings, np.float32)[rows]
        if points.shape[1] < 3:  # of two dimensions the page makes NaN and shows nothing
            points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])), 'constant')
        write_atomically(
            os.path.join(folder, 'embeddings.tsv'),
            _lines([f'{value:.6g}' for value in row] for row in points),
        )
        numbers = np.asarray(numbers)[rows]
        columns = zip(np.asarray(labels)[rows], np.asarray(predictions)[rows], numbers)
        write_atomically(
            os.path.join(folder, 'metadata.tsv'),
            _lines(
                [('label', 'predicted', 'right', 'number')]
                + [
                    (str(label), str(guess), str(int(label == guess)), str(number))
                    for label, guess, number in columns
                ]
            ),
        )
        if self._source is not None and self._size is None:
            content, size = sprite(self._source.images(numbers))
            write_atomically(os.path.join(folder, 'sprite.png'), content)
            self._size = size
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
