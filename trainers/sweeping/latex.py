"""summary.tex: the means of a sweep as a tabular for the package booktabs."""

from __future__ import annotations

from gitloss.errors import one_line
from gitloss.metrics import Metric
from trainers.sweeping.comparing import Comparison, Table
from trainers.sweeping.numbers import mean_text
from trainers.sweeping.results import flag_text, settings_text

_ESCAPES = str.maketrans(
    {
        **{char: '\\' + char for char in '&%$#_{}'},
        '\\': r'\textbackslash{}',
        '~': r'\textasciitilde{}',
        '^': r'\textasciicircum{}',
        '<': r'\textless{}',
        '>': r'\textgreater{}',
        '|': r'\textbar{}',
        '"': "{''}",
    }
)
_DIRECTIONS = {True: 'up', False: 'down', None: ''}
_MARKS = {'better': '+', 'worse': '-', 'different': r'\ast'}


def escaped(text: str) -> str:
    """Text as LaTeX prints it, in one line."""
    return one_line(text).translate(_ESCAPES)


def tabular(table: Table) -> str:
    """The content of summary.tex."""
    titles = [_title(column.metric) for column in table.columns]
    header = [*(rf'\texttt{{{escaped(flag)}}}' for flag in table.flags), 'seeds', *titles]
    lines = [
        *_comments(table),
        rf'\begin{{tabular}}{{{"l" * len(table.flags)}r{"c" * len(titles)}}}',
        r'\toprule',
        ' & '.join(header) + r' \\',
        r'\midrule',
        *(' & '.join(_cells(table, place)) + r' \\' for place in range(len(table.groups))),
        r'\bottomrule',
        r'\end{tabular}',
    ]
    return '\n'.join(lines) + '\n'


def _title(metric: Metric) -> str:
    direction = _DIRECTIONS[metric.higher_is_better]
    return escaped(metric.full_title) + (rf' $\{direction}arrow$' if direction else '')


def _comments(table: Table) -> list[str]:
    lines = [
        r'% \usepackage{booktabs}',
        '% Mean and standard deviation (divisor n - 1) over the seeds of the finished cells.',
    ]
    if table.baseline is not None:
        baseline = one_line(settings_text(table.baseline))
        lines += [
            f'% Raised +, -, *: better than, worse than, different from {baseline}: paired t-test',
            "% over equal seeds, p at most 0.05 with Holm's correction over the settings.",
        ]
    return lines


def _cells(table: Table, place: int) -> list[str]:
    group = table.groups[place]
    cells = [escaped(flag_text(group.settings[flag])) for flag in table.flags]
    cells.append(str(group.finished))
    for metric, summaries, comparisons in table.columns:
        text = mean_text(metric, summaries[place], r' \pm ')
        mark = _mark(comparisons[place]) if comparisons else ''
        cells.append(f'${text}{mark}$' if text else '--')
    return cells


def _mark(comparison: Comparison | None) -> str:
    return f'^{{{_MARKS[comparison.verdict]}}}' if comparison and comparison.verdict else ''
