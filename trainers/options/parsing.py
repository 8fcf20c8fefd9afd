"""Command line -> Options; the help of a command; the table of flags in the README."""

from __future__ import annotations

import difflib
import itertools
import re
from typing import Any, Callable, Iterator, Sequence

from absl import flags

from gitloss import files
from gitloss.errors import OptionError
from trainers.options.fields import FIELDS, Options
from trainers.options.spec import Option, shown

_DEFINE: dict[type, Callable[..., Any]] = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_boolean,
    str: flags.DEFINE_string,
}
# Removed flags, and what to use instead.
_REMOVED = {
    'loss': '--head=softmax, arcface or cosface, with the weights --lambda_c and --lambda_g'
}


class HelpRequested(Exception):
    """--help is one of the arguments; the message is the help text."""


def taken_by(command: str) -> dict[str, Option]:
    """{flag: Option} of the flags that a command takes. `command`: as `trainers.run` or `run`.

    A sweep takes those of its runs, too.
    """
    name = command.rpartition('.')[2]
    names = {name, 'run'} if name == 'sweep' else {name}
    return {flag: option for flag, option in FIELDS.items() if names & set(option.commands)}


def _listed(
    options: dict[str, Option],
    heading: str,
    row: str,
    escaped: Callable[[str], str] = lambda text: text,
) -> list[str]:
    """The options by group: a line for each group, by the template `heading`, and one for each
    option, by `row`. `escaped` makes its help fit there.
    """
    lines = []
    for group, members in itertools.groupby(options.items(), key=lambda item: item[1].group):
        lines.append(heading.format(group))
        for name, option in members:
            text = f'{option.help} ({option.limits})' if option.limits else option.help
            default, commands = shown(option.default), ', '.join(option.commands)
            text = escaped(text)
            lines.append(row.format(name=name, default=default, commands=commands, text=text))
    return lines


def help_text(command: str, doc: str = '') -> str:
    """The text of --help: the flags of the command by group, with defaults and limits."""
    usage = f'usage: python -m {command} [--flagfile=FILE] [--flag=value ...]'
    listed = _listed(taken_by(command), '{}:', '  --{name}={default}\n      {text}')
    return '\n'.join([usage, '', doc, *listed])


def markdown_table() -> str:
    """The table of flags in the README."""
    head = ['| flag | default | commands | what it does |', '|---|---|---|---|']
    row = '| `--{name}` | `{default}` | {commands} | {text} |'
    lines = _listed(FIELDS, '| **{}** | | | |', row, lambda text: text.replace('|', '\\|'))
    table = '\n'.join(head + lines)
    return table.replace('``', '')  # no default


def _refusal(name: str, command: str) -> str:
    """The reason why `command` does not take this flag."""
    taken, known = taken_by(command), name if name in FIELDS else re.sub('^no', '', name)
    if known in FIELDS and known not in taken:
        others = ' and '.join('trainers.' + other for other in FIELDS[known].commands)
        return f'expected a flag of {command}. Received: one of {others}; --help lists them'
    if name in _REMOVED:
        return f'expected {_REMOVED[name]}. Received: a removed flag'
    near = ''.join(f', --{flag} perhaps' for flag in difflib.get_close_matches(name, taken, 1))
    return f'expected a known flag{near}. Received: an unknown one; --help lists all'


def _expanded(arguments: Sequence[str], within: tuple[str, ...] = ()) -> Iterator[str]:
    """The arguments, with those of a flag file in the place of each --flagfile.

    A flag file has one flag a line; lines that begin with # or // are comments. absl reads flag
    files too, but waits for ever for a FIFO, and takes a byte-order mark for a part of a flag.
    """
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, path = argument.partition('=')
        if flag not in ('--flagfile', '-flagfile'):
            yield argument
            continue
        path = path if equals else next(remaining, 'no name of a file')
        if not path or path in within:  # one that includes itself is read once
            continue
        try:
            lines = map(str.strip, files.read(path, 1 << 20).decode('utf-8-sig').splitlines())
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or NUL in the name
            raise OptionError(f'--flagfile: expected a readable file of flags. Received: {error}')
        given = [line for line in lines if line and not line.startswith(('#', '//'))]
        yield from _expanded(given, (*within, path))


def _given(arguments: Sequence[str], command: str, values: flags.FlagValues) -> list[str]:
    """Sets `values` from a command line. Returns the arguments that are no flags."""
    try:
        return values([command, *_expanded(arguments)])[1:]
    except OptionError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise OptionError(f'--{error.flagname}: {_refusal(error.flagname, command)}')
    except flags.Error as error:
        found = re.match(r'flag --(\w+)=(.*?): ', str(error), re.DOTALL)
        if found:  # a text that is not of the type: check says so
            FIELDS[found[1]].check(found[1], found[2])
        raise OptionError(f'flags: expected --name=value. Received: {error}')
    except ValueError as error:  # --noevaluate=true
        raise OptionError(f'{str(error).partition("=")[0]}: expected no value. Received: {error}')
    # Hundreds of flag files, each of which includes the next; or absl's search for a similar name.
    except RecursionError:
        raise OptionError('flags: expected short names and few files in files. Received: too many')


def _take_words(rest: Sequence[str], words: list[str] | None) -> None:
    if words is not None:
        words += rest
    elif rest:
        received = ' '.join(rest)
        raise OptionError(f'arguments: expected flags only, --name=value. Received: {received}')


def _check_required(command: str, values: Any) -> None:
    for name, option in taken_by(command).items():
        is_required = command.rpartition('.')[2] in option.required
        if is_required and getattr(values, name) == option.default:
            raise OptionError(f'--{name}: expected a value, {command} requires it. Received: none')


def parse(
    arguments: Sequence[str],
    command: str = 'trainers.run',
    doc: str = '',
    words: list[str] | None = None,
) -> Options:
    """Parses a command line (without the program's name) into Options.

    Args:
      words: the arguments that are no flags are appended to it; None: there may be none.

    Raises:
      OptionError: unknown flag, flag of another command, wrong type, wrong range, required flag
        missing, unreadable flag file; one line naming flag, expected, received.
      HelpRequested: for --help and -h.
    """
    if any(argument in ('--help', '-help', '-h', '--helpfull') for argument in arguments):
        raise HelpRequested(help_text(command, doc))
    taken, values = taken_by(command), flags.FlagValues()
    values.set_gnu_getopt(words is not None)  # flags may follow other arguments
    for name, option in taken.items():
        _DEFINE[type(option.default)](name, option.default, option.help, flag_values=values)
    _take_words(_given(arguments, command, values), words)
    _check_required(command, values)
    return Options(**{name: getattr(values, name) for name in taken})
