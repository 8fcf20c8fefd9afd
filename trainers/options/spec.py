"""What an option is: its default, what it accepts, what it does, and who may set it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from gitloss.errors import OptionError

KINDS = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'text'}


@dataclasses.dataclass(frozen=True)
class Option:
    """What one field of Options says of itself.

    Attributes:
      default: the value without the flag. Its type is the type of the option.
      help: what the option does, for --help and the README.
      group: the heading of the option there.
      commands: the commands that take the flag; `run` stands for trainers.run.
      required: the commands that take the flag cannot do without it.
      resume: a resumed run may differ from the run that it continues.
      workers: the workers of one run may differ.
      hyperparameter: it decides what is learned, not where it is kept or which device learns it.
      low, high: the smallest and the largest value.
      above: every value is larger than this.
      choices: all values.
      form: (regular expression of the whole text, its description).
    """

    default: Any
    help: str
    group: str
    commands: tuple[str, ...] = ('run',)
    required: bool = False
    resume: bool = False
    workers: bool = False
    hyperparameter: bool = True
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    form: tuple[str, ...] = ()

    @property
    def limits(self) -> str:
        """Describes the values that are accepted; '' if any value of the type is."""
        if self.choices:
            return 'one of ' + ', '.join(filter(None, self.choices))
        if self.above is not None:
            return f'more than {shown(self.above)}'
        if self.high is not None:
            return f'{shown(self.low)} to {shown(self.high)}'
        if self.low is not None:
            return f'at least {shown(self.low)}'
        return 'required' if self.required else ''

    def check(self, name: str, value: Any) -> None:
        """Raises OptionError if the option, whose flag is `name`, does not accept the value."""
        kind = type(self.default)
        if type(value) is not kind and not (type(value) is int and kind is float):
            raise OptionError(f'--{name}: expected {KINDS[kind]}. Received: {value!r}')
        if kind is str and '\0' in value:
            raise OptionError(f'--{name}: expected text without NUL. Received: {value!r}')
        if kind is float and not abs(value) < float('inf'):
            raise OptionError(f'--{name}: expected a finite number. Received: {value}')
        if (
            (self.choices and value not in self.choices)
            or (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
            or (self.above is not None and value <= self.above)
        ):
            raise OptionError(f'--{name}: expected {self.limits}. Received: {value}')
        if self.form and not re.match(self.form[0] + r'\Z', value):
            raise OptionError(f'--{name}: expected {self.form[1]}. Received: {value!r}')


def option(default: Any, help: str, group: str, **declared: Any) -> Any:
    """A dataclass field that carries its Option, under the name `option` of its metadata."""
    stated = Option(default, help, group, **declared)
    return dataclasses.field(default=default, metadata={'option': stated})


def shown(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'{value:g}' if isinstance(value, float) else str(value)
