"""The tables of a sweep: to read, to typeset and to compute with."""

from __future__ import annotations

import csv
import io
import math
import os
from typing import Any, Iterable, Mapping, Sequence

from gitloss import files
from gitloss.errors import log
from gitloss.metrics.statistics import INSTALL, has_scipy
from trainers.sweeping import curves
from trainers.sweeping.comparing import Column, Table, table
from trainers.sweeping.latex import tabular
from trainers.sweeping.markdown import page
from trainers.sweeping.results import SEED, CellResult

_SUMMARY = ('mean', 'std', 'count')
_COMPARED = ('difference', 'difference_std', 'pairs', 'low', 'high', 'p', 'p_holm', 'verdict')


def write_tables(
    folder: str,
    cells: Sequence[CellResult],
    baseline: Mapping[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
) -> list[str]:
    """Writes summary.md, summary.csv, summary.tex, cells.csv and curves.csv, each completely or not
    at all. The same cells in any order give the same bytes.

    Args:
      folder: where to; it exists.
      cells: of one grid.
      baseline: {flag: value}; each setting is compared with the one that has these values and its
        own in all other flags. None: nothing is compared.
      metrics: names in results.json; None: those of `results.METRICS` that there are.

    Returns:
      The paths.

    Raises:
      ValueError: no cells, equal ones, or ones with different flags; the baseline is not in the
        grid; cells have finished, and none has a metric.
      OSError: a file cannot be written.
    """
    shown = table(cells, baseline, metrics)
    if baseline is not None and not has_scipy():
        log.warning('%s', INSTALL)
    contents = {
        'summary.md': page(shown),
        'summary.csv': _text(_summary_rows(shown)),
        'summary.tex': tabular(shown),
        'cells.csv': _text(_cell_rows(shown, folder)),
        'curves.csv': _text(curves.lines(shown.flags, shown.groups)),
    }
    for name, content in contents.items():
        files.write_below(folder, name, content)
    return [os.path.join(folder, name) for name in contents]


def _plain(value: Any) -> str:
    """All digits of a number; nothing for NaN, as what is not defined."""
    if isinstance(value, float):
        return '' if math.isnan(value) else repr(value)
    return str(value)


def _text(rows: Iterable[Sequence[Any]]) -> str:
    content = io.StringIO()
    csv.writer(content, lineterminator='\n').writerows([map(_plain, row) for row in rows])
    return content.getvalue()


def _cell_rows(shown: Table, folder: str) -> Iterable[Sequence[Any]]:
    """A line for each cell, with all that its last measurement has, the table's metrics first."""
    known = {name for cell in shown.cells for name in cell.final}
    names = dict.fromkeys(column.metric.name for column in shown.columns)
    names.update(dict.fromkeys(sorted(known)))
    seeds = [SEED] if SEED in shown.cells[0].settings else []
    flags = [*shown.flags, *seeds]
    yield [*flags, 'status', *names, 'folder', 'note']
    for cell in shown.cells:
        values = [cell.final.get(name, '') for name in names]
        settings = [cell.settings[flag] for flag in flags]
        is_absolute = os.path.isabs(cell.folder)  # two sweeps give the same bytes
        place = os.path.relpath(cell.folder, folder) if is_absolute else cell.folder
        yield [*settings, cell.status, *values, place, cell.note]


def _summary_rows(shown: Table) -> Iterable[Sequence[Any]]:
    """A line for each setting."""
    kinds = _SUMMARY if shown.baseline is None else (*_SUMMARY, *_COMPARED)
    titles = [f'{column.metric.name}_{kind}' for column in shown.columns for kind in kinds]
    yield [*shown.flags, 'cells', 'finished', *titles]
    for place, group in enumerate(shown.groups):
        values = [value for column in shown.columns for value in _summary_values(column, place)]
        settings = [group.settings[flag] for flag in shown.flags]
        yield [*settings, len(group.cells), group.finished, *values]


def _summary_values(column: Column, place: int) -> Sequence[Any]:
    found = column.summaries[place]
    values: list[Any] = [found.mean, found.std, found.count]
    if column.comparisons is None:
        return values
    comparison = column.comparisons[place]
    if comparison is None:
        return [*values, *[''] * len(_COMPARED)]
    difference = comparison.difference
    values += [difference.mean, difference.std, difference.count, *difference.interval]
    return [*values, difference.p, comparison.adjusted, comparison.verdict]
