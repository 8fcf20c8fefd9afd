"""Scatter plots of embeddings, and their projection on two dimensions."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from gitloss import metrics
from gitloss.figures.canvas import COLOURS, new_figure

MARKERS = ('o', 's', '^', 'D', 'v')
_PLANE_POINTS = 2000  # enough to estimate the principal axes


def extent(points: np.ndarray, means: np.ndarray) -> float:
    """Half-width of the square around the origin that contains all points and means, with a margin.

    NaN is ignored.
    """
    values = np.concatenate([np.ravel(points), np.ravel(means), np.full(1, 1e-6)])
    return 1.08 * float(np.fmax.reduce(np.abs(values)))


def _draw_points(axes: Any, points: np.ndarray, labels: np.ndarray) -> None:
    """One line per look, not per class: there may be thousands of classes."""
    classes, places = np.unique(labels, return_inverse=True)
    looks = len(COLOURS) * len(MARKERS)
    for place, label in enumerate(classes[:looks]):
        chosen = points[places % looks == place]
        axes.plot(
            chosen[:, 0],
            chosen[:, 1],
            linestyle='',
            marker=MARKERS[place // len(COLOURS)],
            markersize=3,
            alpha=0.55,
            markeredgewidth=0,
            color=COLOURS[place % len(COLOURS)],
            label=str(label),
        )


def _draw_centers(axes: Any, centers: np.ndarray) -> None:
    axes.plot(
        centers[:, 0],
        centers[:, 1],
        linestyle='',
        marker='X',
        markersize=9,
        color='white',
        markeredgecolor='black',
        label='center',
    )
    # A white outline keeps the number readable on the dots of a dark class.
    outline = [withStroke(linewidth=3, foreground='white')]
    for label, center in enumerate(centers):
        if np.all(np.isfinite(center)) and len(centers) <= 50:
            axes.annotate(
                str(label),
                center,
                xytext=(7, 5),
                textcoords='offset points',
                fontsize=13,
                path_effects=outline,
            )


def scatter(
    embeddings: np.ndarray,
    labels: np.ndarray,
    centers: np.ndarray,
    title: str = '',
    limit: float | None = None,
) -> Figure:
    """The first two dimensions of the embeddings, coloured by class, with numbered centers.

    Args:
      embeddings: float [n, dim]; a single dimension is drawn along a line.
      labels: int [n].
      centers: float [classes, dim]; rows with NaN are not drawn.
      title: text above the plot.
      limit: half-width of the square plot; None fits it to the data.

    Returns:
      A matplotlib Figure of 720 x 640 pixels, the legend beside the plot.
    """
    figure, axes = new_figure((7.2, 6.4), (0.07, 0.06, 0.79, 0.88), title)
    points, marks = (
        np.pad(np.asarray(a, np.float64), ((0, 0), (0, max(0, 2 - a.shape[1]))), 'constant')[:, :2]
        for a in (embeddings, centers)
    )
    _draw_points(axes, points, labels)
    _draw_centers(axes, marks)
    limit = extent(points, marks) if limit is None else limit
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect='equal')
    axes.grid(True, linewidth=0.4, alpha=0.5)
    if len(np.unique(labels)) <= 20:
        legend: Any = axes.legend(
            loc='upper left',
            bbox_to_anchor=(1.0, 1.0),
            fontsize=10,
            frameon=False,
            handletextpad=0.1,
        )
        # legendHandles before Matplotlib 3.7
        for line in getattr(legend, 'legend_handles', None) or legend.legendHandles:
            line.set(markersize=9, alpha=1)
    return figure


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
        axes = np.linalg.svd(points - origin, full_matrices=False)[2][:2].T
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
