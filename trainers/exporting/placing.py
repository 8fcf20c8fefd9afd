"""An export comes to its folder whole or not at all, also if its process is killed on the way."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

from gitloss import files
from gitloss.data import LABELS
from gitloss.errors import check
from trainers.exporting import description, runtimes

_TEMPORARY, _EARLIER = '.gitloss_export', 'earlier'


def _last(name: str) -> bool:
    """gitloss.json goes first and comes last: a folder with it is whole."""
    return name == description.FILE


def _settle(folder: str) -> None:
    """Ends a move: unless the new export is whole, the files before it come back."""
    temporary = os.path.join(folder, _TEMPORARY)
    earlier = os.path.join(temporary, _EARLIER)
    if os.path.isdir(earlier) and not os.path.isfile(os.path.join(folder, description.FILE)):
        for name in sorted(os.listdir(earlier), key=_last):
            source, target = os.path.join(earlier, name), os.path.join(folder, name)
            files.remove(target)
            try:
                os.rmdir(source)  # an empty folder: there was no file of this name
            except OSError:
                os.rename(source, target)
    files.remove(temporary)


@contextlib.contextmanager
def inside(folder: str) -> Iterator[str]:
    """A context with an empty folder in a folder, which is created; it is removed in the end, and
    the other one if it is new and still empty. What a killed `move` left is settled first.

    Raises:
      OSError: the folder cannot be written.
    """
    is_new, temporary = not os.path.isdir(folder), os.path.join(folder, _TEMPORARY)
    _settle(folder)
    os.makedirs(temporary)
    try:
        yield temporary
    finally:
        _settle(folder)
        if is_new:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def move(source: str, folder: str) -> None:
    """Moves an export out of the folder of `inside` to its place; the earlier one goes into that
    folder. Other files stay. After an error, or a kill and the next `inside`, the earlier export is
    in its place again.

    Raises:
      ValueError: a folder that is no SavedModel has the name of one of the files.
      OSError: a file cannot be moved.
    """
    names = sorted(os.listdir(source), key=_last)
    for path in (os.path.join(folder, name) for name in names):
        is_foreign = os.path.isdir(path) and not (os.path.islink(path) or runtimes.is_model(path))
        check(not is_foreign, path, 'no folder of something else', 'one')
    listed = description.listed(folder)
    leaving = dict.fromkeys([description.FILE, *names, *listed, *([LABELS] if listed else [])])
    earlier = os.path.join(source, _EARLIER)
    os.mkdir(earlier)
    for name in leaving:
        try:
            os.rename(os.path.join(folder, name), os.path.join(earlier, name))
        except FileNotFoundError:
            os.mkdir(os.path.join(earlier, name))  # says so to _settle
    for name in names:
        os.rename(os.path.join(source, name), os.path.join(folder, name))
