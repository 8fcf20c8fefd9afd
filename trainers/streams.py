"""The standard streams of a command, which may be closed, full, or without a reader."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import Callable, Iterator, NoReturn

UNFINISHED = 'unfinished'  # name of a thread that may be inside TensorFlow when the process ends
_BROKEN_PIPE = 128 + signal.SIGPIPE  # the status that shells give programs with no reader


def ensure() -> None:
    """Opens closed standard streams to the null device, and makes all text writable.

    Otherwise a file opened later would get the number of a stream, and what TensorFlow prints.
    """
    for number, name in enumerate(('stdin', 'stdout', 'stderr')):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, 'w' if number else 'r', closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, 'errors', '') == 'strict' and hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')


def say(line: str) -> None:
    """Writes a line to stderr at once, where possible.

    In one write: print() writes the newline apart, perhaps after the line of another process.
    """
    with contextlib.suppress(OSError):
        sys.stderr.write(line + '\n')
        sys.stderr.flush()


class OutputLost(Exception):
    """Text could not be written to stdout; the cause is an OSError."""


def output(text: str) -> None:
    """Writes text and a newline to stdout at once.

    Raises:
      OutputLost: nobody reads it, or it is a file on a full disk.
    """
    with _no_loss():
        sys.stdout.write(text + '\n')
        sys.stdout.flush()


@contextlib.contextmanager
def _no_loss() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputLost(error.strerror) from error


def guarded(command: str, work: Callable[[], int]) -> int:
    """The exit status of `work`, with streams in any state.

    Args:
      command: the name in an error line.
      work: may raise OutputLost; returns an exit status.
    """
    ensure()
    try:
        try:
            return work()
        finally:
            with _no_loss():
                sys.stdout.flush()
    except OutputLost as error:
        if isinstance(error.__cause__, BrokenPipeError):  # the reader has what it wanted
            return _BROKEN_PIPE
        say(f'{command}: stdout: expected a stream that can be written. Received: {error}')
        return 2
    finally:
        _detach()


def leave(status: int) -> NoReturn:
    """Ends the process with an exit status.

    A thread that returns from TensorFlow while the interpreter shuts down aborts the process, which
    then has another status: it ends at once if there is one.
    """
    if any(thread.name == UNFINISHED for thread in threading.enumerate()):
        os._exit(status)
    sys.exit(status)


def _detach() -> None:
    """Python flushes the streams again when it exits: a failure then would change the status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, stream.fileno())
            os.close(null)
