"""Declarations of metrics: what a number in the logs means, written by the code that computes it.

Console, history, TensorBoard, report, --monitor and --best read them. An undeclared number is shown
under its own name in the group `run`, and cannot be monitored.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Any, Iterable, Mapping, Sequence

from gitloss.errors import check

SETS = {'train': 'training', 'valid': 'validation', 'test': 'test'}
_GROUPS = (*SETS, 'distance', 'centers', 'gradients', 'run')
_PLACES = {group: place for place, group in enumerate(_GROUPS)}


@dataclasses.dataclass(frozen=True)
class Metric:
    """Declares one number in the logs of a measurement.

    Attributes:
      name: its key in the logs and in history.jsonl.
      title: its displayed name. The metric of a data set, which is named after its group
        (`valid_acc` in `valid`), has a title without the data set: accuracy.
      group: train, valid, test, distance, centers, gradients, run, or a new one; a section in
        TensorBoard.
      higher_is_better: None if neither direction is better; it cannot be monitored then.
      form: format specification of its values, for example '.4f'. Default: four significant digits.
      label: a short name. Metrics with a label are shown on the console at each measurement, come
        first in history.jsonl and have columns in the report.
    """

    name: str
    title: str
    group: str = 'run'
    higher_is_better: bool | None = None
    form: str = ''
    label: str = ''

    @property
    def part(self) -> str:
        """The name within a data set, `acc` of `valid_acc`; empty for a metric of no data set."""
        group, _, part = self.name.partition('_')
        return part if group == self.group and group in SETS else ''

    @property
    def tag(self) -> str:
        """The tag in TensorBoard: `valid/acc`, `distance/inter_cls_dist`."""
        return f'{self.group}/{self.part or self.name}'

    @property
    def full_title(self) -> str:
        """The title with the data set: validation accuracy."""
        return f'{SETS[self.group]} {self.title}' if self.part else self.title

    def text(self, value: Any) -> str:
        """A formatted value."""
        if isinstance(value, float) and not self.form:
            return format(value, '.0f' if 1e3 <= abs(value) < 1e9 else '#.4g')
        return format(value, self.form) if isinstance(value, (int, float)) else str(value)


def loss(group: str, name: str = 'loss') -> Metric:
    """The metric of a loss, or of one of its terms, over a data set: train, valid or test."""
    return Metric(
        f'{group}_{name}',
        name.replace('_', ' '),
        group,
        None if group == 'test' else False,  # no choice depends on the test set
        label=f'{group} loss' if name == 'loss' and group != 'test' else '',
    )


def accuracy(group: str) -> Metric:
    """The metric of the accuracy on a data set: train, valid or test."""
    return Metric(
        f'{group}_acc',
        'accuracy',
        group,
        None if group == 'test' else True,
        form='.4f',
        label=f'{group} acc',
    )


def by_name(declared: Iterable[Metric]) -> dict[str, Metric]:
    """{name: Metric}, ordered by group. The last of several declarations of one name counts."""
    return {
        metric.name: metric
        for metric in sorted(declared, key=lambda metric: _PLACES.get(metric.group, len(_PLACES)))
    }


def find(metrics: Mapping[str, Metric], names: Sequence[str]) -> list[Metric]:
    """The metrics with these names in the order of `metrics`, then the undeclared names."""
    return [metric for name, metric in metrics.items() if name in names] + [
        Metric(name, name) for name in names if name not in metrics
    ]


def chosen(metrics: Mapping[str, Metric], name: str, flag: str) -> Metric:
    """The declared metric that a flag names, to monitor or choose by.

    Raises:
      ValueError: the metric is not declared, or neither direction is better.
    """
    known = [each for each, metric in metrics.items() if metric.higher_is_better is not None]
    near = ', '.join(difflib.get_close_matches(name, known) or known)
    check(
        name in known,
        flag,
        f'a metric that is declared with a better direction: {near}',
        repr(name),
    )
    return metrics[name]


def best(rows: Sequence[Mapping[str, Any]], name: str, higher_is_better: bool | None) -> int | None:
    """Index of the row with the best value of `name`, the first of equal ones.

    Rows without a finite value of that name do not count. None if no row counts.
    """
    places = [
        place
        for place, row in enumerate(rows)
        if isinstance(row.get(name), (int, float)) and abs(row[name]) < math.inf
    ]
    choose = max if higher_is_better else min
    return choose(places, key=lambda place: rows[place][name], default=None)
