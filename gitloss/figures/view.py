"""What the scatters of a run have in common, so that one can be laid beside the other."""

from __future__ import annotations

import math

import numpy as np

from gitloss import metrics
from gitloss.figures import plots

# from one half-width to the next: few changes in a run, and four fifths of each picture are used
# at least
_GROWTH = 1.25
_ANCHORS = 100  # samples of the last picture that the next one is turned to


class View:
    """The plane and the half-width of the axes, from measurement to measurement; both belong into a
    checkpoint.

    The half-width grows in steps of a quarter and shrinks never. Embeddings of more than two
    dimensions are shown on their two principal axes of the measurement, turned or mirrored so that
    the samples lie as near as can be to where they were in the picture before (orthogonal
    Procrustes problem, Schoenemann 1966): on their own the axes change sign and places.
    """

    def __init__(self):
        self.limit, self._anchors = 0.0, []

    def project(self, embeddings, means):
        """(points [n, 2], means [k, 2], half-width) of embeddings [n, dim] of the same samples at
        each call, and means [k, dim].
        """
        plane = plots.plane(embeddings)
        points, means = plane(embeddings), plane(means)
        if embeddings.shape[1] > 2:
            here = points[metrics.spread(len(points), _ANCHORS)]
            if len(self._anchors) == len(here):
                left, _, right = np.linalg.svd(here.T.dot(self._anchors))
                turn = left.dot(right)
                points, means, here = points.dot(turn), means.dot(turn), here.dot(turn)
            self._anchors = [[float(f'{value:.4g}') for value in row] for row in here]
        extent = plots.extent(points, means)
        if extent > self.limit:
            self.limit = _GROWTH ** math.ceil(math.log(extent, _GROWTH))
        return points, means, self.limit

    def state(self):
        """Plain JSON values."""
        return {'limit': self.limit, 'anchors': list(self._anchors)}

    def load_state(self, state):
        self.limit = float(state['limit'])
        self._anchors = [[float(value) for value in row] for row in state['anchors']]
