"""The plane and the axes that the scatters of a run share, so that they compare."""

from __future__ import annotations

import math
from typing import Any, Callable

import numpy as np

from gitloss import metrics

# Factor from one half-width to the next: few changes in a run, and each picture uses at least four
# fifths of its axes.
_GROWTH = 1.25
_ANCHORS = 100  # samples of the last picture that the next one is turned to
_PLANE_POINTS = 2000  # enough to find the principal axes


def extent(points: np.ndarray, means: np.ndarray) -> float:
    """Half-width of the square around the origin that holds points and means, with a margin.

    NaN does not count.
    """
    values = np.concatenate([np.ravel(points), np.ravel(means), [1e-6]])
    return 1.08 * float(np.fmax.reduce(np.abs(values)))


def principal_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plane of largest spread of points [n, dim], dim > 1: (origin [dim], axes [dim, 2]).

    The largest entry of an axis is positive: pictures of one set do not flip.
    """
    origin = points.mean(axis=0)
    centered = points - origin
    # By the covariance where it is small: 2000 x 512 in a tenth of the time of singular values.
    if points.shape[1] <= len(points):
        axes = np.linalg.eigh(centered.T.dot(centered))[1][:, :-3:-1]
    else:
        axes = np.linalg.svd(centered, full_matrices=False)[2][:2].T
    return origin, axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])


def plane(points: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The projection of rows [k, dim] on the plane of largest spread of points [n, dim].

    Of one and two dimensions the rows stay as they are.
    """
    if points.shape[1] <= 2:
        return lambda rows: rows
    sample = points[metrics.evenly_spaced(len(points), _PLANE_POINTS)]
    origin, axes = principal_axes(sample.astype(np.float64))
    return lambda rows: (rows - origin).dot(axes)


class View:
    """The plane and the half-width of the axes, from one measurement to the next. A checkpoint
    keeps both.

    The half-width grows in steps of a quarter and never shrinks. Embeddings of more than two
    dimensions are shown on the two principal axes of the measurement, rotated or reflected so that
    the samples lie as close as possible to their places in the picture before (orthogonal
    Procrustes problem, Schoenemann 1966): the principal axes alone change sign and order.

    Attributes:
      limit: the half-width.
    """

    def __init__(self) -> None:
        self.limit = 0.0
        self._anchors: list[list[float]] = []

    def project(
        self, embeddings: np.ndarray, means: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Projects one measurement.

        Args:
          embeddings: float [n, dim], of the same samples at each call.
          means: float [k, dim].

        Returns:
          (embeddings [n, 2], means [k, 2], half-width of the axes). Of one and two dimensions the
          rows stay as they are.
        """
        project = plane(embeddings)
        points, means = project(embeddings), project(means)
        if embeddings.shape[1] > 2:
            anchors = points[metrics.evenly_spaced(len(points), _ANCHORS)]
            if len(self._anchors) == len(anchors):
                left, _, right = np.linalg.svd(anchors.T.dot(self._anchors))
                turn = left.dot(right)
                points, means, anchors = points.dot(turn), means.dot(turn), anchors.dot(turn)
            self._anchors = [[float(f'{value:.4g}') for value in row] for row in anchors]
        needed = extent(points, means)
        if needed > self.limit:
            self.limit = _GROWTH ** math.ceil(math.log(needed, _GROWTH))
        return points, means, self.limit

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {'limit': self.limit, 'anchors': list(self._anchors)}

    def load_state(self, state: Any) -> None:
        """Takes back what `state` returned."""
        self.limit = float(state['limit'])
        self._anchors = [[float(value) for value in row] for row in state['anchors']]
