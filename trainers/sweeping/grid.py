"""The grid of a sweep: text to flags, flags to cells."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from typing import Any, Iterable, Mapping, NamedTuple

from gitloss.errors import OptionError
from trainers.options import FIELDS, Options, parse, shown

# What a sweep itself decides for each of its runs.
_OWN = ('exp_save_dir', 'resume', 'tf_logs', 'ckpt_path')
# Numbers of steps, which --budget scales.
_STEPS = (
    'steps',
    'update_centers',
    'warmup_steps',
    'lambda_warmup_steps',
    'decay_steps',
    'augment_until',
    'unfreeze_at',
)
_MOST = 100000  # cells, of which each is a training


class Cell(NamedTuple):
    """One run of a sweep.

    name: of its folder, made of its settings.
    settings: {flag of the grid: plain value}.
    options: all options of the run.
    """

    name: str
    settings: dict[str, Any]
    options: Options


def _values(flag: str, text: str) -> list[str]:
    """The values of a flag: separated by |, else by commas; a..b are whole numbers."""
    values: list[str] = []
    for value in text.split('|' if '|' in text else ','):
        ends = re.fullmatch(r'(-?[0-9]{1,9})\.\.(-?[0-9]{1,9})', value)
        if ends and int(ends[1]) <= int(ends[2]) < int(ends[1]) + _MOST:
            values += map(str, range(int(ends[1]), int(ends[2]) + 1))
        else:
            values.append(value)
    if len(set(values)) < len(values):
        raise OptionError(f'--grid: expected each value of {flag} once. Received: {text}')
    return values


def read(text: str, flag: str = '--grid') -> dict[str, list[str]]:
    """{flag: values as text} of a text as "lambda_g=0,1 seed=1..5".

    Raises:
      OptionError: an entry is no flag=values, or not a flag that a run may differ in.
    """
    grid: dict[str, list[str]] = {}
    for entry in text.split():
        name, equals, values = entry.partition('=')
        name = name.lstrip('-')
        option = FIELDS.get(name)
        if not equals or option is None or 'run' not in option.commands or name in _OWN:
            raise OptionError(
                f'{flag}: expected flags of trainers.run with values, as lambda_g=0,1. '
                f'Received: {entry}'
            )
        if name in grid:
            raise OptionError(f'{flag}: expected each flag once. Received: {name} twice')
        grid[name] = _values(name, values)
    return grid


def arguments(options: Options) -> list[str]:
    """The command line of trainers.run with these options, without those that are the default."""
    return [
        f'--{name}={shown(getattr(options, name))}'
        for name, option in FIELDS.items()
        if 'run' in option.commands and getattr(options, name) != option.default
    ]


def scaled(options: Options, budget: int) -> Options:
    """The options with `budget` steps, all intervals in proportion; 0: as they are."""
    if not budget:
        return options
    factor = budget / options.steps
    saved = options.as_dict()
    changes = {name: saved[name] and max(1, round(saved[name] * factor)) for name in _STEPS}
    steps, _ = options.save_interval
    if steps:
        changes['save_every'] = str(max(1, round(steps * factor)))
    return options.restored(saved, **changes)


def _name(settings: Mapping[str, Any], taken: Iterable[str]) -> str:
    """A name for a folder: readable and, if that is not enough, with a digest."""
    plain = ','.join(f'{name}={shown(value)}' for name, value in settings.items())
    name = re.sub(r'[^\w.,=:+-]', '_', plain, flags=re.ASCII)
    if name != plain or len(name) > 150 or name in taken:
        name = f'{name[:140]}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:8]}'
    return name


def cells(options: Options, folder: str) -> list[Cell]:
    """The cells of --grid in the order of their seeds, so that a whole table is there early.

    Args:
      options: of the sweep.
      folder: the absolute path of the folder in which each run has one.

    Raises:
      OptionError: a flag or a value of the grid is none of trainers.run, or there are too many.
    """
    grid: dict[str, list[str]] = read(options.grid)
    found: dict[str, Cell] = {}
    count = 1
    for values in grid.values():
        count *= len(values)
    if not 0 < count <= _MOST:
        raise OptionError(f'--grid: expected at most {_MOST} cells. Received: {count}')
    names = sorted(grid, key=lambda name: name != 'seed')
    for combination in itertools.product(*(grid[name] for name in names)):
        given = dict(zip(names, combination))
        flags = [f'--{name}={given[name]}' for name in grid]
        of_cell = parse([*arguments(options), *flags], 'trainers.run')
        settings = {name: getattr(of_cell, name) for name in grid}
        name = _name(settings, found)
        saved = scaled(of_cell, options.budget).as_dict()
        of_run = Options.restored(saved, exp_save_dir=os.path.join(folder, name), resume='auto')
        found[name] = Cell(name, settings, of_run)
    return list(found.values())
