"""The results of a sweep: cells that differ in their seed alone are one group."""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from callbacks.centers import CenterMeasurement
from callbacks.evaluation import Evaluation
from callbacks.verification import GROUP, Verification
from gitloss.errors import check
from gitloss.metrics import Metric
from gitloss.metrics.declaration import by_name
from trainers.options import shown

SEED = 'seed'
FINISHED, FAILED, UNFINISHED = STATES = ('finished', 'failed', 'unfinished')
# Those that exist, if no others are asked for.
METRICS = (
    'test_acc',
    'valid_acc',
    'inter_cls_dist',
    'intra_cls_dist',
    'inter_over_intra',
    'test_inter_cls_dist',
    'test_intra_cls_dist',
    'test_inter_over_intra',
    'test_eer',
    'test_auc',
)
TIMES = ('images_per_sec', 'seconds')  # no two runs agree on these
_DECLARED = by_name([*Evaluation.metrics, *CenterMeasurement.metrics, *Verification.metrics])


class CellResult(NamedTuple):
    """One run of a sweep.

    settings: {flag: value} of the flags of the grid, `seed` included, in the order of the grid.
    folder: of the run.
    results: the content of its results.json; None if it has none.
    status: finished, failed or unfinished.
    note: why it failed, in a line.
    """

    settings: dict[str, Any]
    folder: str
    results: dict[str, Any] | None
    status: str
    note: str = ''

    @property
    def final(self) -> dict[str, Any]:
        """The last measurement of a finished run and its test metrics, without times; {} of any
        other.
        """
        found = (self.results or {}).get('final') if self.status == FINISHED else {}
        return {name: value for name, value in (found or {}).items() if name not in TIMES}


class Group(NamedTuple):
    """Cells that differ in their seed alone.

    settings: without the seed.
    cells: in the order of their seeds.
    """

    settings: dict[str, Any]
    cells: list[CellResult]

    def by_seed(self, metric: str) -> dict[Any, float]:
        """{seed: value} of the finished cells with a finite value."""
        return {
            cell.settings.get(SEED): float(cell.final[metric])
            for cell in self.cells
            if is_finite(cell.final.get(metric))
        }

    @property
    def finished(self) -> int:
        """Number of finished cells."""
        return sum(cell.status == FINISHED for cell in self.cells)


def flag_text(value: Any) -> str:
    """The value of a flag in a table: as it is typed, and '' for an empty text."""
    return shown(value) or "''"


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings in one line: lambda_c=0.1 lambda_g=1."""
    return ' '.join(f'{flag}={flag_text(value)}' for flag, value in settings.items())


def is_finite(value: Any) -> bool:
    """Whether a value of results.json is a finite number."""
    return isinstance(value, (int, float)) and abs(value) < math.inf


def key(values: Iterable[Any]) -> list[tuple[bool, float, str]]:
    """To sort values of flags by: numbers by size, then texts."""
    return [
        (False, float(value), str(value)) if is_finite(value) else (True, 0.0, str(value))
        for value in values
    ]


def grouped(cells: Sequence[CellResult]) -> list[Group]:
    """The groups of cells, sorted by the values of their flags in the order of the grid.

    Raises:
      ValueError: no cells, cells with different flags or equal settings, or an unknown status.
    """
    check(cells, 'cells', 'at least one', 'none')
    flags = list(cells[0].settings)
    groups: dict[Any, Group] = {}
    for cell in sorted(cells, key=lambda cell: key(cell.settings.get(flag) for flag in flags)):
        check(set(cell.settings) == set(flags), 'settings', f'{flags}', list(cell.settings))
        check(cell.status in STATES, 'status', f'one of {", ".join(STATES)}', cell.status)
        settings = {flag: cell.settings[flag] for flag in flags if flag != SEED}
        group = groups.setdefault(tuple(settings.values()), Group(settings, []))
        is_new = cell.settings.get(SEED) not in [one.settings.get(SEED) for one in group.cells]
        check(is_new, 'cells', 'one for each setting', cell.settings)
        group.cells.append(cell)
    return list(groups.values())


def measured(cells: Sequence[CellResult], names: Sequence[str] | None = None) -> list[Metric]:
    """The metrics with these names, by default those of `METRICS` that a cell has. A test metric
    takes its direction from the same metric of validation images or pairs: it declares none, so
    that no run chooses by it, but a table of finished runs says what is better.

    Raises:
      ValueError: cells have finished, and none has a number of that name.
    """
    known = {name for cell in cells for name, value in cell.final.items() if is_finite(value)}
    for name in names or ():
        near = ', '.join(difflib.get_close_matches(name, sorted(known)) or sorted(known))
        check(not known or name in known, 'metrics', f'a name in results.json, as {near}', name)
    chosen = [name for name in METRICS if name in known] if names is None else list(names)
    return [_directed(_DECLARED.get(name, Metric(name, name))) for name in chosen]


def _directed(metric: Metric) -> Metric:
    likes = (_DECLARED.get(f'{group}_{metric.part}') for group in ('valid', GROUP))
    directions = [metric.higher_is_better] + [like.higher_is_better for like in likes if like]
    known = [direction for direction in directions if direction is not None]
    return dataclasses.replace(metric, higher_is_better=known[0] if known else None)


def origins(cells: Sequence[CellResult]) -> dict[str, dict[str, int]]:
    """Where the numbers come from: {commit, python, tensorflow, ..., device: {value: number of
    finished cells}}.
    """
    named = [
        {**cell.results.get('versions', {}), 'device': cell.results.get('device', 'unknown')}
        for cell in cells
        if cell.status == FINISHED and cell.results
    ]
    found: dict[str, dict[str, int]] = {}
    for name in sorted({name for one in named for name in one}):
        values = [str(one.get(name, 'unknown')) for one in named]
        found[name] = {value: values.count(value) for value in sorted(set(values))}
    return found
