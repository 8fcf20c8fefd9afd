"""The declaration of an option: default, accepted values, help, and where it applies."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Callable

from gitloss.errors import OptionError

_SMALLEST, _LARGEST = 2.0**-126, 2.0**128 - 2.0**104  # normal numbers of float32
KINDS = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'text'}
POSITIVE = (lambda value: value > 0, 'more than 0')


@dataclasses.dataclass(frozen=True)
class Option:
    """The declaration of one field of Options, or of one key of --npu_option.

    Attributes:
      default: the value without the flag. Its type is the type of the option.
      help: what the option does, for --help and the README.
      group: the heading of the option there.
      commands: the commands that take the flag; `run` stands for trainers.run.
      required: the commands that require the flag.
      resume: whether a resumed run may differ from the run that it continues.
      workers: whether the workers of one run may differ.
      hyperparameter: whether it affects what is learned, not where it is saved or on which device.
      low, high: the smallest and the largest value.
      choices: all accepted values.
      accepts: (test of a value, its description), for other values than a range or choices.
    """

    default: Any
    help: str = ''
    group: str = ''
    commands: tuple[str, ...] = ('run',)
    required: tuple[str, ...] = ()
    resume: bool = False
    workers: bool = False
    hyperparameter: bool = True
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    accepts: tuple[Callable[[Any], Any], str] | None = None

    @property
    def limits(self) -> str:
        """Describes the accepted values; '' if every value of the type is accepted."""
        if self.choices:
            return 'one of ' + ', '.join(shown(each) for each in self.choices if each != '')
        if self.accepts:
            return self.accepts[1]
        if self.high is not None:
            return f'{shown(self.low)} to {shown(self.high)}'
        return self.needed if self.low is None else f'at least {shown(self.low)}'

    @property
    def needed(self) -> str:
        """The commands that require the flag, in words; '' if none does."""
        *others, last = self.required or ('',)
        names = ' and '.join([', '.join(others), last]) if others else last
        return f'required by {names}' if names else ''

    def check(self, name: str, value: Any) -> None:
        """Raises OptionError if the option, whose flag is `name`, does not accept the value."""
        kind = type(self.default)
        if type(value) is not kind and not (type(value) is int and kind is float):
            raise OptionError(f'--{name}: expected {KINDS[kind]}. Received: {value!r}')
        if kind is str and '\0' in value:
            raise OptionError(f'--{name}: expected text without NUL. Received: {value!r}')
        if kind is str and not is_utf8(value):  # as TensorFlow needs it, also in paths
            raise OptionError(
                f'--{name}: expected text in UTF-8, and a locale that reads it (LC_ALL). '
                f'Received: {value!r}'
            )
        if kind is float and not _fits_float32(value):
            raise OptionError(
                f'--{name}: expected a finite number, for float32 0 or from 1.2e-38 to 3.4e38. '
                f'Received: {value}'
            )
        if (
            (self.choices and value not in self.choices)
            or (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
            or (self.accepts and not self.accepts[0](value))
        ):
            raise OptionError(f'--{name}: expected {self.limits}. Received: {value!r}')


def option(default: Any, help: str, group: str, **declared: Any) -> Any:
    """A dataclass field that carries its Option, under the name `option` of its metadata."""
    return dataclasses.field(
        default=default, metadata={'option': Option(default, help, group, **declared)}
    )


def _fits_float32(value: float) -> bool:
    """Whether the number is neither infinite nor 0 in float32, in which the graph computes."""
    return value == 0 or _SMALLEST <= abs(value) <= _LARGEST


def is_utf8(text: str) -> bool:
    """Whether the text can be written in UTF-8: without the surrogates of undecodable bytes."""
    return not re.search('[\ud800-\udfff]', text)


def shown(value: Any) -> str:
    """A value as it is typed on the command line, exactly: true, 0.1, 1 for 1.0."""
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text[:-2] if isinstance(value, float) and text.endswith('.0') else text
