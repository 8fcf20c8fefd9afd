"""summary.md: the tables of a sweep to read."""

from __future__ import annotations

from typing import Iterable, Sequence

from gitloss.errors import one_line
from gitloss.metrics import Metric
from gitloss.metrics.statistics import INSTALL, has_scipy
from trainers.sweeping.comparing import Column, Table
from trainers.sweeping.numbers import difference_text, interval_text, mean_text, p_text
from trainers.sweeping.results import (
    FINISHED,
    STATES,
    flag_text,
    is_finite,
    origins,
    settings_text,
)

_ARROWS = {True: ' ↑', False: ' ↓', None: ''}


def page(table: Table) -> str:
    """The content of summary.md."""
    parts = [
        '# Sweep',
        _counts(table),
        *_means(table),
        *_differences(table),
        *_without_results(table),
        *_origin(table),
    ]
    return '\n\n'.join(parts) + '\n'


def _escaped(text: str) -> str:
    return one_line(text).replace('\\', '\\\\').replace('|', '\\|').replace('<', '&lt;')


def _rows(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ['---'] * len(header), *lines]
    return '\n'.join('| ' + ' | '.join(_escaped(cell) for cell in row) + ' |' for row in rows)


def _title(metric: Metric) -> str:
    return metric.full_title + _ARROWS[metric.higher_is_better]


def _counts(table: Table) -> str:
    states = [cell.status for cell in table.cells]
    counts = [f'{states.count(state)} {state}' for state in STATES if state in states]
    return f'Cells: {", ".join(counts)}.'


def _means(table: Table) -> list[str]:
    if not table.columns:
        return []
    lines = []
    for place, group in enumerate(table.groups):
        finished, planned = group.finished, len(group.cells)
        line = [flag_text(group.settings[flag]) for flag in table.flags]
        line.append(str(finished) if finished == planned else f'{finished} of {planned}')
        for metric, summaries, _ in table.columns:
            found = summaries[place]
            # Where a run has no such number, or one that is not finite.
            fewer = f' ({found.count})' if found.count != finished else ''
            line.append((mean_text(metric, found) or '–') + fewer)
        lines.append(line)
    header = [*table.flags, 'seeds', *(_title(column.metric) for column in table.columns)]
    note = (
        'Mean ± standard deviation (divisor n - 1) over the seeds of the finished cells. ↑: higher '
        'is better, ↓: lower is better. A number in brackets: so many cells have a finite value.'
    )
    return [_rows(header, lines), note]


def _differences(table: Table) -> list[str]:
    if table.baseline is None or not table.columns:
        return []
    made = max(
        sum(one is not None and one.adjusted == one.adjusted for one in column.comparisons or ())
        for column in table.columns
    )
    note = (
        'Each setting minus the baseline: the one with these values and all others equal. '
        'Differences are between runs of the same seed; *seeds*: how many both have. *interval*: '
        '95 % confidence interval of the mean difference. *p*: paired t-test over the seeds, '
        "two-sided. *p, Holm*: with Holm's correction (1979) over the comparisons of the metric "
        f'({made} at most); metrics are not corrected for each other. A difference is called '
        'better or worse where this p is at most 0.05, and nowhere else.'
    )
    parts = [f'## Differences to the baseline {settings_text(table.baseline)}', note]
    if not has_scipy():
        parts.append(f'Not computed: {INSTALL}')
    return parts + [_difference_table(table, column) for column in table.columns]


def _difference_table(table: Table, column: Column) -> str:
    lines, metric = [], column.metric
    for place, comparison in enumerate(column.comparisons or ()):
        if comparison is not None:
            mean, found = column.summaries[place].mean, comparison.difference
            settings = table.groups[place].settings
            lines.append(
                [
                    *(flag_text(settings[flag]) for flag in table.flags),
                    str(found.count),
                    difference_text(metric, mean, found),
                    interval_text(metric, mean, found),
                    p_text(found.p),
                    p_text(comparison.adjusted),
                    comparison.verdict,
                ]
            )
    header = [*table.flags, 'seeds', 'difference', 'interval', 'p', 'p, Holm', 'at 0.05']
    return f'### {_title(metric)}\n\n' + _rows(header, lines)


def _without_results(table: Table) -> list[str]:
    lines = []
    for cell in table.cells:
        state = 'finished, no results' if cell.status == FINISHED else cell.status
        if cell.status != FINISHED or not any(is_finite(value) for value in cell.final.values()):
            note = f': {cell.note}' if cell.note else ''
            lines.append(f'- {settings_text(cell.settings)}: {state}{note} ({cell.folder})')
    return ['## Cells without results', '\n'.join(map(_escaped, lines))] if lines else []


def _origin(table: Table) -> list[str]:
    found, lines = origins(table.cells), []
    same = [
        f'{name} {value}' for name, counts in found.items() if len(counts) == 1 for value in counts
    ]
    if same:
        lines.append('- the same in all finished cells: ' + ', '.join(same))
    for name, counts in found.items():
        if len(counts) > 1:
            each = ', '.join(f'{value} in {count}' for value, count in counts.items())
            lines.append(f'- **not the same**: {name} {each}')
    return ['## Origin', '\n'.join(map(_escaped, lines))] if lines else []
