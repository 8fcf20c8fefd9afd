"""Faces cut out of photographs, as the images of the usual training sets are: turned, scaled and
shifted until eyes, nose and corners of the mouth are where those of an average face are.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
from PIL import Image

from gitloss.data.detection import FaceDetector
from gitloss.errors import check, one_line

# Eyes, nose, corners of the mouth, left to right in the image, in pixels of a face of 112 x 112:
# the positions of ArcFace's training images (Deng et al., CVPR 2019).
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
_SIZE = 112


def similarity(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that brings `points` nearest to `places`, by least squares:
    float64 [2, 3], p -> m[:, :2] p + m[:, 2].

    Args:
      points, places: float [n, 2], of which two differ.
    """
    x, y = np.asarray(points, np.float64).T
    zero, one = np.zeros_like(x), np.ones_like(x)
    # x' = a x - b y + c, y' = b x + a y + d
    rows = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    wanted = np.asarray(places, np.float64).T.reshape(-1)
    a, b, c, d = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return np.array([[a, -b, c], [b, a, d]])


def cut_out(image: Any, points: np.ndarray, size: tuple[int, int]) -> Any:
    """The face of an image.

    Args:
      image: a PIL image.
      points: float [5, 2], where the points of TEMPLATE are in it, in pixels; the center of the
        first pixel is (0, 0).
      size: (width, height) of the result, of which TEMPLATE fills the middle square.
    """
    side = min(size)
    shift = (np.array(size) - side) / 2.0
    places = (TEMPLATE + 0.5) * side / _SIZE - 0.5 + shift
    scale = np.sqrt(np.abs(np.linalg.det(similarity(points, places)[:, :2])))
    # A bilinear filter takes four pixels: an image that shrinks is reduced by whole factors before.
    factor = max(int(1.0 / scale), 1)
    points = (np.asarray(points, np.float64) + 0.5) / factor - 0.5
    back = similarity(places, points)
    # Pillow's coordinates begin at the corner of a pixel, ours at its center.
    back[:, 2] += 0.5 - 0.5 * back[:, :2].sum(axis=1)
    coefficients = tuple(back.reshape(-1))
    small = image.reduce(factor) if factor > 1 else image
    return small.transform(size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


class FaceAligner:
    """Cuts the largest face out of an image.

    Args:
      detect: uint8 [height, width, 3] -> the five points of its largest face, or None.
    """

    def __init__(self, detect: Callable[[np.ndarray], np.ndarray | None]) -> None:
        self._detect = detect

    def __call__(self, image: Any, where: str, size: tuple[int, int]) -> Any:
        """The face, of `size` (width, height).

        Args:
          image: a PIL image.
          where: its path, for messages.

        Raises:
          ValueError: there is no face.
        """
        points = self._detect(np.asarray(image.convert('RGB')))
        if points is not None:
            return cut_out(image, points, size)
        check(False, one_line(where, 5000), 'an image with a face', 'one in which none is found')


def aligner() -> FaceAligner:
    """Cuts out the faces that the package mtcnn finds.

    Raises:
      ValueError: it is not installed.
    """
    return FaceAligner(FaceDetector())
