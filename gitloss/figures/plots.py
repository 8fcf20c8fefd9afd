"""Scatter plots, curves and histograms as matplotlib figures; no TensorFlow, no display."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Sequence

import numpy as np

from gitloss.figures.view import extent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distinguishable for colour-blind readers: Paul Tol's "muted" scheme and black. Marker shapes
# repeat the information.
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
LEGEND: Any = {'frameon': False, 'handletextpad': 0.1}  # of classes
_CURVE_SIZE = (7.2, 4.2)


def new_figure(
    size: tuple[float, float],
    place: tuple[float, float, float, float],
    title: str,
    xlabel: str = '',
    ylabel: str = '',
) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes and a grid.

    Args:
      size: width and height in inches of 100 pixels.
      place: left, bottom, width and height of the axes, as fractions of the figure.
      title, xlabel, ylabel: texts.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes(place)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(True, linewidth=0.4, alpha=0.5)
    return figure, axes


def two_columns(points: np.ndarray) -> np.ndarray:
    """float64 [n, 2] of points [n, dim]: the first two dimensions, the second one 0 for dim 1."""
    rows = np.asarray(points, np.float64)
    return np.pad(rows, ((0, 0), (0, max(0, 2 - rows.shape[1]))), 'constant')[:, :2]


def draw_points(axes: Any, points: np.ndarray, labels: np.ndarray, size: float = 3) -> None:
    """Points [n, 2] coloured by their labels [n], of `size` printer's points.

    One line per look, not per class: there may be thousands of classes.
    """
    classes, places = np.unique(labels, return_inverse=True)
    looks = len(COLOURS) * len(MARKERS)
    for place, label in enumerate(classes[:looks]):
        chosen = points[places % looks == place]
        axes.plot(
            chosen[:, 0],
            chosen[:, 1],
            linestyle='',
            marker=MARKERS[place // len(COLOURS)],
            markersize=size,
            alpha=0.55,
            markeredgewidth=0,
            color=COLOURS[place % len(COLOURS)],
            label=str(label),
        )


def draw_centers(axes: Any, centers: np.ndarray, size: float = 9) -> None:
    """Crosses of `size` printer's points at centers [classes, 2], numbered if there are at most 50;
    rows with NaN are not drawn.
    """
    from matplotlib.patheffects import withStroke

    are_few = len(centers) <= 50
    axes.plot(
        centers[:, 0],
        centers[:, 1],
        linestyle='',
        marker='X',
        markersize=size if are_few else 4,
        color='white',
        markeredgecolor='black',
        label='center',
    )
    for label, center in enumerate(centers):
        if are_few and np.all(np.isfinite(center)):
            axes.annotate(
                str(label),
                center,
                xytext=(size - 2, size - 4),
                textcoords='offset points',
                fontsize=4 + size,
                # A white outline keeps the number readable on the dots of a dark class.
                path_effects=[withStroke(linewidth=3, foreground='white')],
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
    points, marks = two_columns(embeddings), two_columns(centers)
    draw_points(axes, points, labels)
    draw_centers(axes, marks)
    limit = extent(points, marks) if limit is None else limit
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect='equal')
    if len(np.unique(labels)) <= 20:
        strengthen(axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.0), **LEGEND))
    return figure


def strengthen(legend: Any) -> None:
    """Makes the points in a legend as large as they can be read."""
    # legendHandles before Matplotlib 3.7
    for line in getattr(legend, 'legend_handles', None) or legend.legendHandles:
        line.set(markersize=9, alpha=1)


def _scale_by_factors(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_yscale('log')
    low, high = axes.get_ylim()
    axes.yaxis.set(
        major_locator=LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,)),
        major_formatter=StrMethodFormatter('{x:g}'),  # 0.2 and 0.5, not powers of ten
        minor_formatter=NullFormatter(),
    )


def curves(
    lines: Mapping[str, Sequence[Sequence[float]]],
    title: str,
    ylabel: str,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Lines over the training steps on a logarithmic axis, or a linear one if no value is positive,
    the legend beside the plot, where it covers no line.

    Args:
      lines: {label: (steps [n], values [n])}.
      title, ylabel: texts.
      limits: the ends of a linear axis.

    Returns:
      A matplotlib Figure of 720 x 420 pixels.
    """
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    figure, axes = new_figure(_CURVE_SIZE, (0.1, 0.13, 0.66, 0.77), title, 'step', ylabel)
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
    if limits:
        axes.set(ylim=limits)
        # Short numbers, which leave room for the name of the axis.
        axes.yaxis.set(major_locator=MaxNLocator(5), major_formatter=StrMethodFormatter('{x:g}'))
    elif any(value > 0 for _, values in lines.values() for value in values):
        _scale_by_factors(axes)
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    if lines:
        axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.02), frameon=False, handlelength=2.6)
    return figure


def distances(
    genuine: np.ndarray, impostor: np.ndarray, title: str = 'distances between validation samples'
) -> Figure:
    """Histograms of the distances of genuine (same class) and impostor (two classes) pairs.

    Args:
      genuine, impostor: float [n], [k]; each histogram has area 1.
      title: text above the plot.

    Returns:
      A matplotlib Figure of 720 x 420 pixels.
    """
    figure, axes = new_figure(
        _CURVE_SIZE,
        (0.11, 0.13, 0.86, 0.77),
        title,
        'Euclidean distance',
        'probability density',
    )
    largest = max(float(np.max(part)) if len(part) else 0.0 for part in (genuine, impostor)) or 1.0
    for part, label, colour, hatch in (
        (genuine, 'genuine: same class', COLOURS[3], None),
        (impostor, 'impostor: different classes', COLOURS[6], '//'),
    ):
        if len(part):
            axes.hist(
                part,
                np.linspace(0.0, largest, 81).tolist(),
                density=True,
                alpha=0.6,
                color=colour,
                hatch=hatch,
                edgecolor='white',
                linewidth=0.2,
                label=label,
            )
    axes.set(xlim=(0.0, largest), axisbelow=True)
    if len(genuine) or len(impostor):
        axes.legend()
    return figure
