"""Matplotlib figures from arrays. No TensorFlow, no display: the Agg canvas draws them."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gitloss.figures.view import extent

# Ten colours that colour-blind readers can tell apart: Paul Tol's "muted" scheme and black. Marker
# shapes distinguish more classes.
COLOURS = (
    '#332288',
    '#88ccee',
    '#44aa99',
    '#117733',
    '#999933',
    '#ddcc77',
    '#cc6677',
    '#882255',
    '#aa4499',
    '#000000',
)
MARKERS = ('o', 's', '^', 'D', 'v')


def new_figure(
    width: float, height: float, place: tuple[float, float, float, float]
) -> tuple[Figure, Axes]:
    """(figure of that many inches, 100 pixels each, its axes at `place`: left, bottom, width and
    height as shares).
    """
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure, figure.add_axes(place)


def _curve_figure(xlabel, ylabel, title, place):
    figure, axes = new_figure(7.2, 4.2, place)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=12)
    return figure, axes


def _legend(axes, **settings):
    """Beside the plot: inside it would cover points or lines."""
    return axes.legend(loc='upper left', fontsize=10, frameon=False, **settings)


def scatter(
    embeddings: np.ndarray,
    labels: np.ndarray,
    centers: np.ndarray,
    title: str = '',
    limit: float | None = None,
) -> Figure:
    """The first two dimensions of the embeddings, coloured by class, with the centers marked and
    numbered.

    Args:
      embeddings: float [n, dim], dim >= 2 (a single dimension is drawn along a line).
      labels: int [n].
      centers: float [classes, dim]; a row of NaN is left out.
      title: text above the plot.
      limit: half-width of the square plot; None fits it to the data.

    Returns:
      A figure of 720 x 640 pixels, the legend beside the plot.
    """
    figure, axes = new_figure(7.2, 6.4, (0.07, 0.06, 0.79, 0.88))
    points, marks = (
        np.pad(np.asarray(a, np.float64), ((0, 0), (0, max(0, 2 - a.shape[1]))), 'constant')[:, :2]
        for a in (embeddings, centers)
    )
    classes = _draw_points(axes, points, labels)
    _draw_centers(axes, marks)
    limit = extent(points, marks) if limit is None else limit
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    axes.set_aspect('equal')
    axes.grid(True, linewidth=0.4, alpha=0.5)
    axes.set_title(title, fontsize=12)
    if classes <= 20:
        legend = _legend(axes, bbox_to_anchor=(1.0, 1.0), handletextpad=0.1)
        # Renamed in Matplotlib 3.7.
        for line in getattr(legend, 'legend_handles', None) or legend.legendHandles:
            line.set_markersize(9)
            line.set_alpha(1)
    return figure


def _draw_points(axes, points, labels):
    """Dots, one line for all classes that look alike: there may be thousands. Returns the number of
    classes.
    """
    classes, places = np.unique(labels, return_inverse=True)
    looks = len(COLOURS) * len(MARKERS)
    for place, label in enumerate(classes[:looks]):
        axes.plot(
            *points[places % looks == place].T,
            linestyle='',
            marker=MARKERS[place // len(COLOURS)],
            markersize=3,
            alpha=0.55,
            markeredgewidth=0,
            color=COLOURS[place % len(COLOURS)],
            label=str(label),
        )
    return len(classes)


def _draw_centers(axes, marks):
    """White crosses, up to 50 of them with the numbers of their classes."""
    look = {'linestyle': '', 'marker': 'X', 'markersize': 9, 'color': 'white'}
    axes.plot(*marks.T, markeredgecolor='black', label='center', **look)
    # The number stands among the dots of its class, which may be dark.
    halo = [withStroke(linewidth=3, foreground='white')]
    text = {'textcoords': 'offset points', 'fontsize': 13, 'path_effects': halo}
    for label, mark in enumerate(marks):
        if np.all(np.isfinite(mark)) and len(marks) <= 50:
            axes.annotate(str(label), mark, xytext=(7, 5), **text)


def curves(
    lines: Mapping[str, tuple[Sequence[float], ...]],
    title: str,
    ylabel: str,
    log_scale: bool = False,
) -> Figure:
    """Lines over the training steps, the legend beside the plot.

    Args:
      lines: {label: (steps [n], values [n])}.
      title, ylabel: texts.
      log_scale: logarithmic y axis.

    Returns:
      A figure of 720 x 420 pixels.
    """
    figure, axes = _curve_figure('step', ylabel, title, (0.1, 0.13, 0.66, 0.77))
    for place, (label, (steps, values)) in enumerate(lines.items()):
        axes.plot(
            steps,
            values,
            color=COLOURS[(0, 6, 3, 2, 8, 4)[place % 6]],
            linestyle=('-', '--', '-.', ':')[place % 4],
            marker='o' if len(steps) < 30 else None,
            markersize=3,
            label=label,
        )
    if log_scale:
        axes.set_yscale('log')
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,)))
        # 0.2 and 0.5, not powers of ten.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    axes.grid(True, linewidth=0.4, alpha=0.5)
    if lines:
        _legend(axes, bbox_to_anchor=(1.0, 1.02), handlelength=2.6)
    return figure


def distances(
    genuine: np.ndarray,
    impostor: np.ndarray,
    title: str = 'distances between validation samples',
) -> Figure:
    """Histograms of the distances of genuine pairs (one class) and impostor pairs (two classes).

    Args:
      genuine, impostor: float [n], [k]; each is scaled to area 1.
      title: text above the plot.

    Returns:
      A figure of 720 x 420 pixels.
    """
    place = (0.11, 0.13, 0.86, 0.77)
    figure, axes = _curve_figure('Euclidean distance', 'probability density', title, place)
    largest = max(float(np.max(part)) if len(part) else 0.0 for part in (genuine, impostor))
    edges = np.linspace(0.0, largest or 1.0, 81)
    look: dict[str, Any] = {'density': True, 'alpha': 0.6, 'edgecolor': 'white', 'linewidth': 0.2}
    for part, label, colour, hatch in (
        (genuine, 'genuine: same class', COLOURS[3], None),
        (impostor, 'impostor: different classes', COLOURS[6], '//'),
    ):
        if len(part):
            axes.hist(part, edges, color=colour, hatch=hatch, label=label, **look)
    axes.set_xlim(0.0, edges[-1])
    axes.grid(True, linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    axes.legend(fontsize=10)
    return figure
