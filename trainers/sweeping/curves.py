"""curves.csv: what each measurement of the runs has, over the steps."""

from __future__ import annotations

import json
import os
from typing import Any, Iterable, Sequence

from gitloss import files
from gitloss.metrics.statistics import summary
from trainers.sweeping.results import FINISHED, TIMES, CellResult, Group, is_finite


def lines(flags: Sequence[str], groups: Sequence[Group]) -> Iterable[Sequence[Any]]:
    """A line for each setting, step and metric, with mean, standard deviation and count over the
    finished cells whose history can be read.

    Args:
      flags: of the grid, without the seed.
    """
    yield [*flags, 'step', 'metric', 'mean', 'std', 'count']
    for group in groups:
        settings = [group.settings[flag] for flag in flags]
        for step, values in sorted(_by_step(group).items()):
            for metric in sorted(values):
                found = summary(values[metric])
                yield [*settings, step, metric, found.mean, found.std, found.count]


def _by_step(group: Group) -> dict[int, dict[str, list[float]]]:
    """{step: {metric: its finite values, in the order of the seeds}}."""
    found: dict[int, dict[str, list[float]]] = {}
    for cell in group.cells:
        for row in _history(cell) if cell.status == FINISHED else []:
            values = found.setdefault(row['step'], {})
            for metric in row:
                if metric not in ('step', *TIMES) and is_finite(row[metric]):
                    values.setdefault(metric, []).append(float(row[metric]))
    return found


def _history(cell: CellResult) -> list[dict[str, Any]]:
    """The measurements of a run, {step, metric: value}; none if its history is gone or damaged."""
    try:
        text = files.read(os.path.join(cell.folder, 'history.jsonl')).decode()
        rows = [json.loads(line) for line in text.splitlines()]
        return rows if all(type(row['step']) is int for row in rows) else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
