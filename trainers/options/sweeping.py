"""The options for a sweep over a grid of flags."""

from __future__ import annotations

import dataclasses
import functools
import re

from trainers.options.spec import option

_sweep = functools.partial(
    option, group='sweep', commands=('sweep',), resume=True, hyperparameter=False
)
_PART = re.compile('([1-9][0-9]{0,5})/([1-9][0-9]{0,5})')


def part_of(text: str) -> tuple[int, int]:
    """(number from 1 on, count) of a text as 2/8; (0, 0) if it is none."""
    match = _PART.fullmatch(text)
    number, count = map(int, match.groups()) if match else (0, 0)
    return (number, count) if number <= count else (0, 0)


@dataclasses.dataclass(frozen=True)
class Sweeping:
    """The sixth part of Options."""

    grid: str = _sweep(
        '',
        'Flags of trainers.run and their values: "lambda_g=0,0.1,1 seed=1..5". Values with commas '
        'are separated by |: "augment=|crop:2|crop:2,rotate:10". Each combination is a run.',
        required=('sweep',),
    )
    baseline: str = _sweep(
        '',
        'Values of flags of --grid, as "lambda_g=0": the tables compare each cell with the one '
        'that has these values and is otherwise equal, over equal seeds.',
    )
    budget: int = _sweep(
        0,
        'Steps of each run, instead of --steps; all intervals and warm-ups shrink or grow with '
        'them. 0: --steps.',
        low=0,
        high=10**9,
    )
    jobs: int = _sweep(
        0,
        'Runs at once, which share the cores and the GPUs. 0: one for each GPU; without a GPU, for '
        'each two cores, but two on two cores.',
        low=0,
        high=4096,
    )
    part: str = _sweep(
        '1/1',
        'Of several machines that share the folder: 2/8 does the second eighth of the runs.',
        accepts=(lambda text: part_of(text)[1], 'a part, as 2/8'),
    )
