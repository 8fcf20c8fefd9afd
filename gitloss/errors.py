"""The project's log, its exceptions, and how an error is told in one line."""

from __future__ import annotations

import logging
import os
import re
import signal
import traceback

log = logging.getLogger('gitloss')
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def one_line(text: str, length: int = 500) -> str:
    """Text from outside, fit for one line of a terminal: no control characters, cut at `length`."""
    line = ''.join(letter if letter.isprintable() else ' ' for letter in text[:length])
    return line if len(text) <= length else line + '...'


def reason(error: BaseException) -> str:
    """Why a TensorFlow operation failed, in one line.

    TF 2.x puts the node's traceback before the message.
    """
    text = getattr(error, 'message', None) or str(error) or type(error).__name__
    text = re.sub(r'\A.*^Node: [^\n]*\n(?=.)', '', text, flags=re.DOTALL | re.MULTILINE)
    return text.splitlines()[0]


def describe(error: BaseException) -> str:
    """An exception of a user's code in one line, with the last place outside libraries and
    callbacks/.
    """
    ours = os.path.join(_ROOT, 'callbacks')
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        frame
        for frame in frames
        if '-packages' not in frame.filename and os.path.dirname(frame.filename) != ours
    ]
    place = (theirs or frames)[-1]
    text = str(error).splitlines()[0] if str(error) else ''
    file = os.path.basename(place.filename)
    return f'{type(error).__name__}: {text} ({file}, line {place.lineno})'


class OptionError(ValueError):
    """A mistake on the command line, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class DamagedCheckpoint(ValueError):
    """A checkpoint folder that is not what its manifest says, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Diverged(RuntimeError):
    """Raised in a hook when the training has gone wrong.

    With a `rate_factor` the trainer returns to the last checkpoint and multiplies the learning rate
    by it. Without one, or without a checkpoint, the training ends with the message.
    """

    def __init__(self, message: str, rate_factor: float | None = None) -> None:
        super().__init__(message)
        self.rate_factor = rate_factor


class HookError(RuntimeError):
    """A mistake in the code of a callback, in one line that names it."""


class TrainingError(RuntimeError):
    """The training cannot go on, in one line."""


class WorkerLost(RuntimeError):
    """Another worker has ended, does not answer or has different variables, in one line."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the training; a checkpoint of the last whole step was written.

    Not an Exception: a callback's `except Exception` must not swallow it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f'stopped by {signal.Signals(signum).name}')
        self.signum = signum
