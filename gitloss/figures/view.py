"""The plane and scale that the scatter plots of a run share, so that they can be compared."""

from __future__ import annotations

import itertools
import math
from typing import Any, Callable

import numpy as np

from gitloss import metrics
from gitloss.errors import check

# Ratio of successive half-widths: few changes in a run, and the data spans at least four fifths of
# each picture.
_GROWTH = 1.25
_ANCHORS = 100  # samples that align a picture with the one before
_PLANE_POINTS = 2000  # enough to estimate the principal axes


def extent(points: np.ndarray, means: np.ndarray) -> float:
    """Half-width of the square around the origin that contains all points and means, with a margin.

    NaN is ignored.
    """
    return 1.08 * float(np.fmax.reduce(np.abs(np.append(points, means)), initial=1e-6))


def principal_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two directions of largest variance: (origin [dim], axes [dim, 2]) of points [n, dim].

    The largest component of each axis is positive, so that pictures of one set are not mirrored.
    dim is at least 2.
    """
    origin = points.mean(axis=0)
    if points.shape[1] <= len(points):
        # The covariance takes a tenth of the time of the singular values for 2000 x 512.
        axes = np.linalg.eigh((points - origin).T.dot(points - origin))[1][:, :-3:-1]
    else:
        # Two axes need two rows: a single one, at the origin, is repeated.
        rows = np.resize(points - origin, (max(2, len(points)), points.shape[1]))
        axes = np.linalg.svd(rows, full_matrices=False)[2][:2].T
    return origin, axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])


def plane(points: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The projection [k, dim] -> [k, 2] on the principal axes of points [n, dim].

    With dim 1 or 2 it returns its argument.
    """
    if points.shape[1] <= 2:
        return lambda values: values
    sample = metrics.evenly_spaced(len(points), _PLANE_POINTS)
    origin, axes = principal_axes(points[sample].astype(np.float64))
    return lambda values: (values - origin).dot(axes)


class View:
    """The projection plane and the half-width of the axes over the measurements of a run.

    The half-width grows in steps of a quarter and never shrinks. Embeddings of more than two
    dimensions are projected on the two principal axes of the measurement, then rotated or mirrored
    to bring the samples as close as possible to their places in the picture before (orthogonal
    Procrustes problem, Schoenemann 1966): principal axes alone change sign and order.
    """

    def __init__(self) -> None:
        self.limit: float = 0.0
        self._anchors: list[list[float]] = []

    def project(
        self, embeddings: np.ndarray, means: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """(points [n, 2], means [k, 2], half-width) of embeddings [n, dim] and means [k, dim].

        Every call expects the embeddings of the same samples.
        """
        to_plane = plane(embeddings)
        points, means = to_plane(embeddings), to_plane(means)
        if embeddings.shape[1] > 2:
            anchors = points[metrics.evenly_spaced(len(points), _ANCHORS)]
            if len(self._anchors) == len(anchors):
                left, _, right = np.linalg.svd(anchors.T.dot(self._anchors))
                rotation = left.dot(right)
                points, means, anchors = (rows.dot(rotation) for rows in (points, means, anchors))
            self._anchors = [[float(f'{value:.4g}') for value in row] for row in anchors]
        steps = math.ceil(math.log(extent(points, means), _GROWTH))
        self.limit = max(self.limit, _GROWTH**steps)
        return points, means, self.limit

    def state(self) -> dict[str, Any]:
        """Plain JSON values for a checkpoint."""
        return {'limit': self.limit, 'anchors': self._anchors}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned.

        Raises:
          ValueError: the half-width or an anchor is none of embeddings in float32.
        """
        self.limit = float(state['limit'])
        self._anchors = [[float(x), float(y)] for x, y in state['anchors']]
        largest = np.abs([self.limit, *itertools.chain(*self._anchors)]).max()
        check(self.limit >= 0 and largest < 2.0**128, 'view', 'numbers of float32', largest)
