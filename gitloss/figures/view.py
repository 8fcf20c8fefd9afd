"""The plane and scale that the scatter plots of a run share, so that they can be compared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gitloss import metrics
from gitloss.figures import plots

# Ratio of successive half-widths: few changes in a run, and the data spans at least four fifths of
# each picture.
_GROWTH = 1.25
_ANCHORS = 100  # samples that align a picture with the one before


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
        plane = plots.plane(embeddings)
        points, means = plane(embeddings), plane(means)
        if embeddings.shape[1] > 2:
            anchors = points[metrics.evenly_spaced(len(points), _ANCHORS)]
            if len(self._anchors) == len(anchors):
                left, _, right = np.linalg.svd(anchors.T.dot(self._anchors))
                rotation = left.dot(right)
                points, means, anchors = (rows.dot(rotation) for rows in (points, means, anchors))
            self._anchors = [[float(f'{value:.4g}') for value in row] for row in anchors]
        extent = plots.extent(points, means)
        if extent > self.limit:
            self.limit = _GROWTH ** math.ceil(math.log(extent, _GROWTH))
        return points, means, self.limit

    def state(self) -> dict[str, Any]:
        """Plain JSON values for a checkpoint."""
        return {'limit': self.limit, 'anchors': list(self._anchors)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        self.limit = float(state['limit'])
        self._anchors = [[float(value) for value in row] for row in state['anchors']]
