"""The project's log, its exceptions, and error messages of one line."""

from __future__ import annotations

import logging
import os
import re
import signal
import traceback
from typing import Any, Iterable

log = logging.getLogger('gitloss')
_CALLBACKS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'callbacks')


def one_line(text: str, length: int = 500) -> str:
    """Untrusted text as one line: no control characters, at most `length` characters."""
    line = text[:length]
    if not line.isprintable():
        line = ''.join(char if char.isprintable() else ' ' for char in line)
    return line if len(text) <= length else line + '...'


def check(holds: Any, name: str, expected: str, received: Any) -> None:
    """ValueError unless `holds`: the error line of the project."""
    if not holds:
        raise ValueError(f'{name}: expected {expected}. Received: {received}')


def check_choice(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """`value`; ValueError unless it is in `allowed`."""
    check(value in allowed, name, f'one of {", ".join(allowed)}', repr(value))
    return value


# What TensorFlow puts before the cause of an error.
_PREAMBLES = re.compile(
    r"""\s*(
        Restoring\ from\ checkpoint\ failed\..*?Original\ error:
        | Graph\ execution\ error:
        | From\ /job:[^\n]*:$
        | Detected\ at\ node.*^Node:\ [^\n]*$  # where the node was made, in TF 2.x
        | [0-9]+\ root\ error\(s\)\ found\.\s*\(0\)[\w ]+:
        | \{\{function_node\ [^\n]*?\}\}
        | Error\ in\ user-defined\ function\ passed\ to\ \S+\ transformation\ with\ iterator:\ \S+:
    )\s*(?=\S)""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)


def reason(error: BaseException) -> str:
    """Why a TensorFlow operation, or anything else, failed: the cause, in one line."""
    text = getattr(error, 'message', None) or str(error)
    preamble = _PREAMBLES.match(text)
    while preamble:
        text = text[preamble.end() :]
        preamble = _PREAMBLES.match(text)
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def describe(error: BaseException) -> str:
    """An exception of a user's code in one line, with its innermost source line outside libraries
    and callbacks/.
    """
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        frame
        for frame in frames
        if '-packages' not in frame.filename and os.path.dirname(frame.filename) != _CALLBACKS
    ]
    place = (theirs or frames)[-1]
    text = str(error).splitlines()[0] if str(error) else ''
    file = os.path.basename(place.filename)
    return f'{type(error).__name__}: {text} ({file}, line {place.lineno})'


class OneLineError(ValueError):
    """An error with a message of one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class OptionError(OneLineError):
    """An invalid command line."""


class DamagedCheckpoint(OneLineError):
    """A checkpoint folder that does not match its manifest."""


class Diverged(RuntimeError):
    """Raised in a hook when the training diverges.

    With a `rate_factor` the trainer returns to the last checkpoint and multiplies the learning rate
    by it. Without one, or without a checkpoint, the training ends with the message.
    """

    def __init__(self, message: str, rate_factor: float | None = None) -> None:
        super().__init__(message)
        self.rate_factor = rate_factor


class HookError(RuntimeError):
    """An error in the code of a callback; the message is one line and names the callback."""


class TrainingError(RuntimeError):
    """The training cannot continue; the message is one line."""


class ExportError(RuntimeError):
    """A file of an export cannot be made, or does not agree with its checkpoint; one line."""


class FolderLost(TrainingError):
    """The folder of the run is gone, or another one has its name: nothing more is written."""


class WorkerLost(RuntimeError):
    """Another worker has ended, does not answer or has different variables."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the training; a checkpoint of the last completed step was written.

    Not an Exception: a callback's `except Exception` must not swallow it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f'stopped by {signal.Signals(signum).name}')
        self.signum = signum
