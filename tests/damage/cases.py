"""What a case of bad input is and how it is tried: under an alarm, so that a hang fails, and with
writes only below its own folder.
"""

import builtins
import collections
import contextlib
import functools
import io
import logging
import os
import signal
import tempfile
from unittest import mock

from gitloss.errors import log

Case = collections.namedtuple('Case', 'kind name run')
Case.__doc__ = (
    'run(folder) returns what came of it: "refused", "passed over" (the checkpoint before it '
    'serves) or "correct".'
)

SECONDS = 60  # far longer than any case takes; for hangs
_HELD = []


def lasting_folder():
    """A new folder that lives as long as the process."""
    _HELD.append(tempfile.TemporaryDirectory())
    return _HELD[-1].name


def said(error, *names):
    """A clear error: a ValueError of one line that names what is wrong."""
    text = str(error)
    assert isinstance(error, ValueError), repr(error)
    assert text and text.splitlines() == [text] and len(text) < 2000, text
    assert any(name in text for name in names), f'{text}: none of {names} in it'
    return 'refused'


def expecting(kind, name, work, *outcomes):
    """A case whose work(folder) has one of the outcomes; none named: any."""

    def run(folder):
        found = work(folder)
        assert not outcomes or found in outcomes, found
        return found

    return Case(kind, name, run)


# --- what a case may write, and how long it may take ----------------------------------------------


def _opens_to_write(args, keywords):
    return set(keywords.get('mode', args[1] if len(args) > 1 else 'r')) & set('wax+')


# (module, function, number of its arguments that are paths, whether a call writes)
_DOORS = [(module, 'open', 1, _opens_to_write) for module in (builtins, io)] + [
    (os, name, 2 if name in ('rename', 'replace', 'symlink') else 1, lambda *_: True)
    for name in ('mkdir', 'rename', 'replace', 'remove', 'unlink', 'rmdir', 'symlink')
]


def _guarded(function, paths, writes, folder, outside):
    """`function`, which notes in `outside` and refuses what it would write outside `folder`."""

    @functools.wraps(function)
    def guarded(*args, **keywords):
        for path in args[:paths] if writes(args, keywords) else ():
            if isinstance(path, (str, bytes, os.PathLike)):
                where = os.path.realpath(os.fsdecode(path))
                if not (where + os.sep).startswith(os.path.realpath(folder) + os.sep):
                    outside.append(f'{function.__name__} of {where}')
                    raise PermissionError(outside[-1])
        return function(*args, **keywords)

    return guarded


@contextlib.contextmanager
def confined(folder):
    """Fails if anything outside `folder` is opened for writing, created, renamed or removed."""
    outside = []
    try:
        with contextlib.ExitStack() as stack:
            for module, name, paths, writes in _DOORS:
                guarded = _guarded(getattr(module, name), paths, writes, folder, outside)
                stack.enter_context(mock.patch.object(module, name, guarded))
            yield
    finally:
        assert not outside, outside


class Hang(BaseException):
    """Not an Exception, so that no handler mistakes it for bad input."""


@contextlib.contextmanager
def alarmed(name):
    """Ends what hangs."""

    def hung(signum, frame):
        raise Hang(f'{name}: still at it after {SECONDS} s')

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_case(case, folder):
    """Runs one case in `folder`. Returns its outcome."""
    with alarmed(f'{case.kind} {case.name}'):
        outcome = case.run(str(folder))
    assert outcome in ('refused', 'passed over', 'correct')
    assert not os.path.exists(os.path.join(str(folder), Evil.MARK))
    return outcome


class Evil:
    """Its pickle creates a file when it is loaded."""

    MARK = 'the-pickle-was-loaded'
    folder = '.'

    def __reduce__(self):
        return os.mkdir, (os.path.join(self.folder, self.MARK),)


@contextlib.contextmanager
def logging_to(stream):
    """The lines of the log go to `stream` alone."""
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)
    level, propagate = log.level, log.propagate
    log.setLevel('INFO')
    log.propagate = False
    try:
        yield stream
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


# --- files and how to spoil their bytes -----------------------------------------------------------


def write(folder, files):
    """Writes {name: bytes}."""
    for name, content in files.items():
        with open(os.path.join(folder, name), 'wb') as file:
            file.write(content)


def flipped(content, chance):
    position = chance.randrange(len(content))
    return (
        content[:position]
        + bytes([content[position] ^ 1 << chance.randrange(8)])
        + content[position + 1 :]
    )


def cut(content, chance):
    return content[: chance.randrange(len(content))]


def lengthened(content, chance):
    return content + bytes(chance.randrange(256) for _ in range(chance.choice((1, 7, 512))))


def spliced(content, chance):
    """One slice of the bytes overwritten by another."""
    size = chance.randrange(1, 40)
    source, target = (chance.randrange(max(1, len(content) - size)) for _ in range(2))
    return content[:target] + content[source : source + size] + content[target + size :]


def noise(content, chance):
    return bytes(chance.randrange(256) for _ in range(chance.choice((0, 1, 3, 16, 300))))


SPOILERS = (flipped, cut, lengthened, spliced, noise)
