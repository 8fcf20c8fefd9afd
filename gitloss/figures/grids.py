"""Scatter plots of a grid of settings side by side, and what pictures of a grid share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, NamedTuple, Sequence

import numpy as np

from gitloss.errors import check
from gitloss.figures import plots
from gitloss.figures.view import extent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PLOTS = 144  # of a scatter grid
# Of places without a value.
MISSING: Any = {'facecolor': 'white', 'edgecolor': '#999999', 'hatch': '///', 'linewidth': 0.5}
_SIDE, _GAPS = 2.3, (0.12, 0.3)  # of a plot, in inches; between columns and between rows
_LEGEND_LINE = 0.22  # height in inches
_COMPARABLE = 3.0  # ratio of half-widths up to which plots share one


class Axis(NamedTuple):
    """The values of a flag along the rows or columns of a grid.

    name: of the flag; empty if the values say it.
    values: as texts.
    """

    name: str
    values: Sequence[str]

    def named(self, place: int) -> str:
        """A value with the name of its flag."""
        value = self.values[place]
        return f'{self.name} = {value}' if self.name else value


class Plot(NamedTuple):
    """One scatter plot of a grid.

    points: float [n, dim], of which the first two dimensions are drawn.
    labels: int [n].
    means: float [classes, dim], crosses; NaN where there is none.
    caption: text above it.
    """

    points: np.ndarray
    labels: np.ndarray
    means: np.ndarray
    caption: str = ''


def empty_figure(width: float, height: float, title: str) -> Figure:
    """A figure of a size in inches of 100 pixels, wider if its title needs it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(width, 0.4 + 0.115 * len(title)), height), dpi=100)
    FigureCanvasAgg(figure)
    figure.text(0.5, 1 - 0.15 / height, title, fontsize=13, ha='center', va='top')
    return figure


def axes_at(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes at a place in inches from the left and upper edge of the figure."""
    across, down = figure.get_size_inches()
    return figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down)
    )


def scatter_grid(
    rows: Axis,
    columns: Axis,
    drawn: Mapping[tuple[int, int], Plot],
    title: str,
    missing: Mapping[tuple[int, int], str],
) -> Figure:
    """Scatter plots by row and column.

    All have the same axes if their half-widths differ by less than a factor of three; else each has
    its own, and says so above it.

    Args:
      rows, columns: two flags.
      drawn: {(row, column): Plot}.
      title: text above the picture.
      missing: {(row, column): text} of places without a plot, which are hatched.

    Returns:
      A matplotlib Figure that grows with the grid.

    Raises:
      ValueError: more than 144 plots.
    """
    count = len(rows.values) * len(columns.values)
    check(count <= MOST_PLOTS, 'plots', f'at most {MOST_PLOTS} in a scatter grid', count)
    entries = _legend_entries([plot.labels for plot in drawn.values()])
    figure, grid = _laid_out(rows, columns, title, entries)
    halves = [extent(plot.points, plot.means) for plot in drawn.values()]
    is_shared = not halves or max(halves) < _COMPARABLE * min(halves)
    for at, axes in grid.items():
        if at in drawn:
            _draw_plot(axes, drawn[at], max(halves) if is_shared else None)
        else:
            _hatch(axes, missing.get(at, ''))
    if entries:
        _draw_legend(figure)
    return figure


def _laid_out(
    rows: Axis, columns: Axis, title: str, entries: int
) -> tuple[Figure, dict[tuple[int, int], Any]]:
    """(figure, {(row, column): axes}), with the names of rows and columns and room for a legend of
    so many entries.
    """
    shape = len(rows.values), len(columns.values)
    left = 0.4 + 0.2 * max(value.count('\n') for value in rows.values)
    width = left + shape[1] * (_SIDE + _GAPS[0]) + 0.1
    legend = _LEGEND_LINE * max(0, -(-entries // _across(width)) - 1)
    figure = empty_figure(width, 1.35 + shape[0] * (_SIDE + _GAPS[1]) + legend, title)
    grid = {}
    for row, column in np.ndindex(*shape):
        place = left + column * (_SIDE + _GAPS[0]), 1.05 + row * (_SIDE + _GAPS[1])
        axes = grid[row, column] = axes_at(figure, *place, _SIDE, _SIDE)
        axes.set(xticks=[], yticks=[])
        if row == 0:
            _write_above(axes, columns.named(column))
        if column == 0:
            axes.set_ylabel(rows.named(row), fontsize=_font_size(rows.named(row)))
    return figure, grid


def _font_size(text: str) -> float:
    """Of a text beside one plot, which must not reach the next one."""
    return max(5.0, min(11.0, 290.0 / max(1, *map(len, text.split('\n')))))


def _write_above(axes: Any, text: str) -> None:
    looks: Any = {'xycoords': 'axes fraction', 'textcoords': 'offset points', 'ha': 'center'}
    axes.annotate(text, (0.5, 1), (0, 20), fontsize=_font_size(text), **looks)


def _hatch(axes: Any, text: str) -> None:
    axes.patch.set(**MISSING)
    looks: Any = {'ha': 'center', 'va': 'center', 'fontsize': 10}
    axes.text(0.5, 0.5, text, bbox={'facecolor': 'white', 'edgecolor': 'none'}, **looks)


def _draw_plot(axes: Any, plot: Plot, shared: float | None) -> None:
    """With the shared half-width, or its own, which it says then."""
    plots.draw_points(axes, plots.two_columns(plot.points), plot.labels, 1.8)
    plots.draw_centers(axes, plots.two_columns(plot.means), 5)
    limit, caption = shared, plot.caption
    if limit is None:
        limit = extent(plot.points, plot.means)
        shown = format(limit, '.3g' if limit < 1e3 else '.0f')
        caption = f'{caption}   axes ±{shown}'.strip()
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit))
    axes.set_title(caption, fontsize=min(9.0, 0.8 * _font_size(caption) + 2), pad=3)


def _legend_entries(labels: Sequence[np.ndarray]) -> int:
    """Of a legend of the classes and their centers: 0, no legend, if the plots have different
    classes or more than 20.
    """
    classes = {tuple(np.unique(each)) for each in labels}
    count = len(next(iter(classes))) if len(classes) == 1 else 0
    return count + 1 if 0 < count <= 20 else 0


def _across(width: float) -> int:
    """Entries of the legend in a line, in a picture of this width in inches."""
    return max(1, int(width / 0.75))


def _draw_legend(figure: Any) -> None:
    """Below the plots."""
    axes = next(axes for axes in figure.axes if axes.lines)
    found = axes.get_legend_handles_labels()
    across = _across(figure.get_size_inches()[0])
    plots.strengthen(figure.legend(*found, loc='lower center', ncol=across, **plots.LEGEND))
