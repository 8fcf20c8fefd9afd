"""The numbers of a sweep's tables: summaries over seeds, and comparisons with a baseline."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Mapping, NamedTuple, Sequence

from gitloss.errors import check
from gitloss.metrics import Metric
from gitloss.metrics.statistics import Paired, Summary, holm, paired, summary
from trainers.sweeping.results import CellResult, Group, grouped, measured, settings_text

ALPHA = 0.05  # of adjusted p values, above which no difference is named


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A group beside its baseline, in one metric.

    difference: over the seeds that both have.
    adjusted: p of the difference by Holm's correction over all groups that were compared.
    verdict: better, worse, or different in a metric without a direction; empty if `adjusted` is
      above 0.05 or not defined.
    """

    difference: Paired
    adjusted: float
    verdict: str


class Column(NamedTuple):
    """One metric of all groups.

    comparisons: see `compared`; None without a baseline.
    """

    metric: Metric
    summaries: list[Summary]
    comparisons: list[Comparison | None] | None


class Table(NamedTuple):
    """All that the tables of a sweep show.

    flags: of the grid, without the seed.
    cells: in the order of the groups, then of the seeds.
    """

    flags: list[str]
    groups: list[Group]
    cells: list[CellResult]
    baseline: Mapping[str, Any] | None
    columns: list[Column]


def table(
    cells: Sequence[CellResult],
    baseline: Mapping[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
) -> Table:
    """The table of a sweep; the same one in whatever order the cells are.

    Raises:
      ValueError: see `grouped`, `baselines` and `measured`.
    """
    groups = grouped(cells)
    others = baselines(groups, baseline) if baseline is not None else None
    columns = [
        Column(
            metric,
            [summary(list(group.by_seed(metric.name).values())) for group in groups],
            None if others is None else compared(groups, others, metric),
        )
        for metric in measured(cells, metrics)
    ]
    ordered = [cell for group in groups for cell in group.cells]
    return Table(list(groups[0].settings), groups, ordered, baseline, columns)


def baselines(groups: Sequence[Group], baseline: Mapping[str, Any]) -> list[Group | None]:
    """The baseline of each group: the one with the values of `baseline` in its flags, and the
    group's own in all others. None for a group that is a baseline itself, or has none.

    Raises:
      ValueError: a flag is not in the grid, or no group has these values.
    """
    check(baseline, 'baseline', 'at least one flag', 'none')
    flags = list(groups[0].settings)
    unknown = [flag for flag in baseline if flag not in flags]
    check(not unknown, 'baseline', f'flags of the grid: {", ".join(flags)}', ', '.join(unknown))
    found = {tuple(group.settings.values()): group for group in groups}
    wanted = [found.get(tuple({**one.settings, **baseline}.values())) for one in groups]
    check(any(wanted), 'baseline', 'values of the grid', settings_text(baseline))
    return [None if other is group else other for group, other in zip(groups, wanted)]


def compared(
    groups: Sequence[Group], others: Sequence[Group | None], metric: Metric
) -> list[Comparison | None]:
    """Each group beside its baseline; None for one without a baseline."""
    differences = [
        None if other is None else _difference(group, other, metric.name)
        for group, other in zip(groups, others)
    ]
    adjusted = holm([math.nan if one is None else one.p for one in differences])
    return [
        None if one is None else Comparison(one, p, _verdict(one, p, metric.higher_is_better))
        for one, p in zip(differences, adjusted)
    ]


def _difference(group: Group, other: Group, metric: str) -> Paired:
    values, baseline = group.by_seed(metric), other.by_seed(metric)
    seeds = [seed for seed in values if seed in baseline]
    return paired([values[seed] for seed in seeds], [baseline[seed] for seed in seeds])


def _verdict(difference: Paired, adjusted: float, higher_is_better: bool | None) -> str:
    if not adjusted <= ALPHA:  # NaN, too
        return ''
    if higher_is_better is None:
        return 'different'
    return 'better' if (difference.mean > 0) == higher_is_better else 'worse'
