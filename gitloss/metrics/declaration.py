"""What a number in the logs means, declared once, by the code that computes it.

Console, history, TensorBoard, report, --monitor and --best read the declaration. Numbers in the
logs that nobody declares are written under their own name, in the group `run`, and nothing is
chosen by them.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Any, Iterable, Mapping, Sequence

SETS = {'train': 'training', 'valid': 'validation', 'test': 'test'}
_PLACES = {group: place for place, group in enumerate((*SETS, 'distance', 'centers', 'run'))}


@dataclasses.dataclass(frozen=True)
class Metric:
    """Declares one number of a measurement.

    Attributes:
      name: its key in the logs and in history.jsonl.
      title: its name for readers. Of a metric of a data set, which is one named after its group
        (`valid_acc` in `valid`), the title leaves out the set: accuracy.
      group: train, valid, test, distance, centers, run, or a new one: its section in TensorBoard.
      higher_is_better: None if neither direction is better: nothing can be chosen by it.
      form: format specification of its values, as '.4f'. Default: four significant digits.
      label: a short name. Metrics with a label are the ones that the console shows at each
        measurement; they come first in history.jsonl and have columns in the report.
    """

    name: str
    title: str
    group: str = 'run'
    higher_is_better: bool | None = None
    form: str = ''
    label: str = ''

    @property
    def part(self) -> str:
        """`acc` of `valid_acc`: the name within a data set. Empty for a metric of no data set."""
        is_of_set = self.group in SETS and self.name.startswith(self.group + '_')
        return self.name[len(self.group) + 1 :] if is_of_set else ''

    @property
    def tag(self) -> str:
        """The tag in TensorBoard: `valid/acc`, `distance/inter_cls_dist`."""
        return f'{self.group}/{self.part or self.name}'

    @property
    def full_title(self) -> str:
        """The title with the data set: validation accuracy."""
        return f'{SETS[self.group]} {self.title}' if self.part else self.title

    def text(self, value: Any) -> str:
        """A value for readers."""
        if isinstance(value, float) and not self.form:
            return format(value, '.0f' if 1e3 <= abs(value) < 1e9 else '#.4g')
        return format(value, self.form) if isinstance(value, (int, float)) else str(value)


def loss(group: str, name: str = 'loss') -> Metric:
    """The metric of a loss, or of one of its terms, over a data set: train, valid or test."""
    return Metric(
        f'{group}_{name}',
        name.replace('_', ' '),
        group,
        None if group == 'test' else False,  # nothing is chosen by the test set
        label=f'{group} loss' if name == 'loss' and group != 'test' else '',
    )


def accuracy(group: str) -> Metric:
    """The metric of the accuracy on a data set: train, valid or test."""
    higher_is_better = None if group == 'test' else True
    return Metric(f'{group}_acc', 'accuracy', group, higher_is_better, '.4f', f'{group} acc')


def by_name(declared: Iterable[Metric]) -> dict[str, Metric]:
    """{name: Metric}, group by group. Of two declarations of one name the last one counts."""
    grouped = sorted(declared, key=lambda metric: _PLACES.get(metric.group, len(_PLACES)))
    return {metric.name: metric for metric in grouped}


def find(metrics: Mapping[str, Metric], names: Sequence[str]) -> list[Metric]:
    """The metrics of some names in the order of `metrics`, then those that are not declared."""
    declared = [metric for name, metric in metrics.items() if name in names]
    return declared + [Metric(name, name) for name in names if name not in metrics]


def chosen(metrics: Mapping[str, Metric], name: str, flag: str) -> Metric:
    """The declared metric that a flag names, to choose by.

    Raises:
      ValueError: it is not declared, or neither direction is better.
    """
    known = [each for each, metric in metrics.items() if metric.higher_is_better is not None]
    if name not in known:
        near = ', '.join(difflib.get_close_matches(name, known) or known)
        raise ValueError(
            f'{flag}: expected a metric that is declared with a better direction: {near}. '
            f'Received: {name!r}'
        )
    return metrics[name]


def best(rows: Sequence[Mapping[str, Any]], name: str, higher_is_better: bool) -> int | None:
    """Index of the row with the best value of `name`, the first of equals; None if there is none.

    Rows without a finite number of that name do not count.
    """
    sign = 1 if higher_is_better else -1
    values = {
        place: sign * row[name]
        for place, row in enumerate(rows)
        if isinstance(row.get(name), (int, float)) and abs(row[name]) < math.inf
    }
    return max(values, key=values.__getitem__) if values else None
