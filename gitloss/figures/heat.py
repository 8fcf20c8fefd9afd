"""Heat maps of a number over two flags of a grid of settings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

import numpy as np

from gitloss.errors import check
from gitloss.figures.grids import MISSING, Axis, axes_at, empty_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CELLS = 1000
# Inches.
_CELL_HEIGHT, _NARROWEST, _WIDEST = 0.56, 0.92, 2.2
_LETTER = 0.085  # of a letter of a label
_LONGEST_BAR = 4.0
_ROW = 13.0  # of panels beside each other, unless one alone is wider
_LONGEST = 24  # letters of the value of a flag
_LOGARITHMIC = 100.0  # ratio of the largest value to the smallest


class _Panel(NamedTuple):
    """The size of a panel and of its parts in inches."""

    left: float
    top: float
    width: float
    height: float
    cells: tuple[float, float]

    @classmethod
    def fit(cls, titles: Sequence[str], rows: Axis, columns: Axis) -> _Panel:
        longest = max(map(len, columns.values))
        cell = min(_WIDEST, max(_NARROWEST, _LETTER * longest + 0.15))
        cells = cell * len(columns.values), _CELL_HEIGHT * len(rows.values)
        left = 0.45 + _LETTER * max(map(len, rows.values))
        top = 0.1 + 0.19 * max(title.count('\n') + bool(title) for title in titles)
        title = 0.095 * max(len(line) for title in titles for line in title.split('\n'))
        return cls(left, top, max(left + cells[0] + 0.12, title), top + cells[1] + 0.65, cells)


def heat_maps(
    panels: Sequence[str],
    rows: Axis,
    columns: Axis,
    values: np.ndarray,
    texts: np.ndarray,
    title: str,
    higher_is_better: bool | None = None,
) -> Figure:
    """A heat map of each panel, all with one scale: Matplotlib's cividis, which readers with and
    without colour blindness see alike. Brighter is better, or larger if neither direction is. The
    scale is logarithmic if all values are positive and differ by two orders of magnitude.

    Args:
      panels: their titles.
      rows, columns: two flags.
      values: float [panels, rows, columns]; cells with NaN are hatched.
      texts: str of the same shape, shown in the cells.
      title: text above the picture.
      higher_is_better: None if neither direction is better.

    Returns:
      A matplotlib Figure that grows with the grid.

    Raises:
      ValueError: more than 1000 cells, or arrays of another shape.
    """
    shape = (len(panels), len(rows.values), len(columns.values))
    check(values.shape == texts.shape == shape, 'values', f'{shape}', (values.shape, texts.shape))
    check(values.size <= MOST_CELLS, 'cells', f'at most {MOST_CELLS} in a heat map', values.size)
    rows, columns = _shortened(rows), _shortened(columns)
    colours = _Colours(values, higher_is_better)
    figure, panel_axes, bar = _laid_out(_Panel.fit(panels, rows, columns), len(panels), title)
    for axes, name, numbers, shown in zip(panel_axes, panels, values, texts):
        axes.set_title(name, fontsize=11)
        _name_axes(axes, rows, columns)
        _draw_cells(axes, numbers, shown, colours)
    colours.draw_bar(figure, bar)
    return figure


def _laid_out(panel: _Panel, count: int, title: str) -> tuple[Figure, list[Any], Any]:
    """(figure, axes of the panels, axes of the scale)."""
    across = max(1, min(count, int(_ROW / panel.width)))
    down = math.ceil(count / across)
    figure = empty_figure(across * panel.width + 1.0, down * panel.height + 0.55, title)
    places = [
        (
            number % across * panel.width + panel.left,
            number // across * panel.height + panel.top + 0.5,
            *panel.cells,
        )
        for number in range(count)
    ]
    height = min(_LONGEST_BAR, down * panel.height - panel.top - 0.65)
    places.append((across * panel.width + 0.1, panel.top + 0.5, 0.16, height))
    *panels, bar = [axes_at(figure, *place) for place in places]
    return figure, panels, bar


def _shortened(axis: Axis) -> Axis:
    return Axis(
        axis.name,
        [text if len(text) <= _LONGEST else f'{text[: _LONGEST - 1]}…' for text in axis.values],
    )


class _Colours:
    """The colours of the values of a picture, and of the texts on them."""

    def __init__(self, values: np.ndarray, higher_is_better: bool | None) -> None:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LogNorm, Normalize

        known = values[np.isfinite(values)]
        low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
        self.is_logarithmic = low > 0 and high >= _LOGARITHMIC * low
        if low == high:  # the middle of the scale
            low, high = low - (abs(low) or 1.0), high + (abs(high) or 1.0)
        norm = (LogNorm if self.is_logarithmic else Normalize)(float(low), float(high))
        name = 'cividis_r' if higher_is_better is False else 'cividis'
        self._mappable: Any = ScalarMappable(norm, name)

    def of(self, value: float) -> tuple[Any, str]:
        """The colour of a value, and black or white, which can be read on it."""
        colour = self._mappable.to_rgba(value)
        brightness = np.dot(colour[:3], (0.299, 0.587, 0.114))
        return colour, 'black' if brightness > 0.5 else 'white'

    def draw_bar(self, figure: Any, axes: Any) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        figure.colorbar(self._mappable, cax=axes)
        if self.is_logarithmic:
            axes.yaxis.set(
                major_locator=LogLocator(subs=(1, 2, 5)),
                major_formatter=StrMethodFormatter('{x:g}'),
                minor_formatter=NullFormatter(),
            )
        else:
            axes.ticklabel_format(useOffset=False)
        axes.tick_params(labelsize=9)


def _name_axes(axes: Any, rows: Axis, columns: Axis) -> None:
    axes.set(xticks=range(len(columns.values)), xticklabels=columns.values, xlabel=columns.name)
    axes.set(yticks=range(len(rows.values)), yticklabels=rows.values, ylabel=rows.name)
    axes.tick_params(length=0, labelsize=10)


def _draw_cells(axes: Any, values: np.ndarray, texts: np.ndarray, colours: _Colours) -> None:
    from matplotlib.patches import Rectangle

    for (row, column), value in np.ndenumerate(values):
        is_known = bool(np.isfinite(value))
        colour, ink = colours.of(float(value)) if is_known else ('white', 'black')
        looks = {'facecolor': colour, 'edgecolor': 'white'} if is_known else MISSING
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **looks))
        box = None if is_known else {'facecolor': 'white', 'edgecolor': 'none', 'pad': 1.5}
        text = str(texts[row, column])
        centered = {'ha': 'center', 'va': 'center', 'fontsize': 10}
        axes.text(column, row, text, color=ink, bbox=box if text else None, **centered)
    axes.set(xlim=(-0.5, values.shape[1] - 0.5), ylim=(values.shape[0] - 0.5, -0.5))
