"""The pictures of a sweep: heat maps over two flags, and the embeddings of each setting."""

from __future__ import annotations

import itertools
import os
import zipfile
import zlib
from typing import Any, NamedTuple, Sequence

import numpy as np

from callbacks.pictures import frames_of, read_frame
from gitloss import files
from gitloss.errors import log
from gitloss.figures import encoding, grids, heat, view
from gitloss.figures.grids import Axis, Plot
from gitloss.metrics import Metric
from gitloss.metrics.statistics import summary
from trainers.sweeping.numbers import mean_text
from trainers.sweeping.results import (
    FAILED,
    FINISHED,
    SEED,
    UNFINISHED,
    CellResult,
    Group,
    flag_text,
    grouped,
    is_finite,
    key,
    measured,
)

_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class Arrangement(NamedTuple):
    """The flags of a grid along the axes of a picture. Flags of one value are left out.

    panels: values of all flags but two, as texts.
    places: (panel, row, column) of each group.
    """

    panels: list[str]
    rows: Axis
    columns: Axis
    places: list[tuple[int, int, int]]


def write_pictures(
    folder: str, cells: Sequence[CellResult], metrics: Sequence[str] | None = None
) -> list[str]:
    """Writes `heat-<metric>.png`, with means and deviations over the seeds, and `scatter-grid.png`,
    the last scatter plot of one seed of each setting. What cannot be drawn is a warning.

    Args:
      folder: where to; it exists.
      cells: of one grid.
      metrics: see `write_tables`.

    Returns:
      The paths.

    Raises:
      ValueError: see `write_tables`.
      OSError: a file cannot be written.
    """
    groups, shown = grouped(cells), measured(cells, metrics)
    placed, written = arranged(groups), []
    drawings: dict[str, Any] = {
        f'heat-{metric.name}.png': lambda metric=metric: _heat_map(groups, placed, metric)
        for metric in shown
        if len(groups) > 1
    }
    drawings['scatter-grid.png'] = lambda: _scatter_grid(groups, placed, shown)
    for name, draw in drawings.items():
        try:
            figure = draw()
        except ValueError as error:  # too large a grid
            log.warning('no %s: %s', name, error)
            continue
        if figure is not None:
            files.write_below(folder, name, encoding.png_bytes(figure))
            written.append(os.path.join(folder, name))
    return written


def arranged(groups: Sequence[Group]) -> Arrangement:
    """Rows and columns are the first two flags of more than one value, those of numbers before
    others.
    """
    values = {
        flag: sorted({group.settings[flag] for group in groups}, key=lambda value: key([value]))
        for flag in groups[0].settings
    }
    flags = [flag for flag in values if len(values[flag]) > 1]
    flags.sort(key=lambda flag: not all(type(value) in (int, float) for value in values[flag]))
    named = [*flags[:2][::-1], '', ''][:2]  # columns first: a single flag is along the columns
    columns, rows = (
        Axis(flag, [flag_text(value) for value in values[flag]] if flag else ['']) for flag in named
    )
    rest = flags[2:]
    panels = list(itertools.product(*(values[flag] for flag in rest)))
    titles = [
        '\n'.join(f'{flag} = {flag_text(value)}' for flag, value in zip(rest, panel))
        for panel in panels
    ]

    def place(group: Group) -> tuple[int, int, int]:
        column, row = (values[flag].index(group.settings[flag]) if flag else 0 for flag in named)
        return panels.index(tuple(group.settings[flag] for flag in rest)), row, column

    return Arrangement(titles, rows, columns, [place(group) for group in groups])


def _heat_map(groups: Sequence[Group], placed: Arrangement, metric: Metric) -> Any:
    shape = len(placed.panels), len(placed.rows.values), len(placed.columns.values)
    values, texts = np.full(shape, np.nan), np.full(shape, '', object)
    for group, place in zip(groups, placed.places):
        found = summary(list(group.by_seed(metric.name).values()))
        values[place] = found.mean
        texts[place] = mean_text(metric, found, '\n± ') or _absence(group)
    counts = sorted({group.finished for group in groups} - {0})
    title = metric.full_title
    if counts[-1:] > [1]:
        title += (
            f', mean ± std of {" to ".join(map(str, counts[:: max(1, len(counts) - 1)]))} seeds'
        )
    if metric.higher_is_better is not None:
        title += '; brighter is better'
    return heat.heat_maps(
        placed.panels, placed.rows, placed.columns, values, texts, title, metric.higher_is_better
    )


def _absence(group: Group) -> str:
    states = [cell.status for cell in group.cells]
    return FAILED if FAILED in states else UNFINISHED if UNFINISHED in states else 'no value'


def _scatter_grid(groups: Sequence[Group], placed: Arrangement, metrics: Sequence[Metric]) -> Any:
    """None without data of any plot. The panels are below each other."""
    frames = [_last_frame(group) for group in groups]
    seeds = {cell.settings.get(SEED) for cell, _ in filter(None, frames)}
    if not seeds:
        return None
    drawn, missing = {}, {}
    for group, (panel, row, column), found in zip(groups, placed.places, frames):
        at = panel * len(placed.rows.values) + row, column
        if found is None:
            missing[at] = _absence(group).replace('value', 'plot')
        else:
            cell, plot = found
            drawn[at] = plot._replace(caption=_caption(cell, metrics, len(seeds) > 1))
    title = 'validation embeddings'
    if len(seeds) == 1 and seeds != {None}:
        title += f', seed {seeds.pop()}'
    return grids.scatter_grid(_stacked(placed), placed.columns, drawn, title, missing)


def _stacked(placed: Arrangement) -> Axis:
    rows = placed.rows
    if placed.panels == ['']:
        return rows
    named = [rows.named(place) for place in range(len(rows.values))]
    return Axis('', [f'{panel}\n{row}'.strip() for panel in placed.panels for row in named])


def _caption(cell: CellResult, metrics: Sequence[Metric], with_seed: bool) -> str:
    """The first metric that the cell has, and its seed."""
    known = [metric for metric in metrics if is_finite(cell.final.get(metric.name))]
    parts = [f'{one.label or one.title} {one.text(cell.final[one.name])}' for one in known[:1]]
    return '   '.join([*parts, f'seed {cell.settings.get(SEED)}'] if with_seed else parts)


def _last_frame(group: Group) -> tuple[CellResult, Plot] | None:
    """The first finished cell whose data can be read, and its last plot."""
    for cell in group.cells:
        frames = frames_of(cell.folder) if cell.status == FINISHED else []
        if frames:
            path = frames[-1][1]
            try:
                frame = read_frame(path)
                plane = view.plane(frame['points'])
                points, means = plane(frame['points']), plane(frame['means'])
                return cell, Plot(points, frame['labels'], means)
            except _DAMAGE as error:
                log.warning('no scatter plot from %s: %s', path, error)
    return None
