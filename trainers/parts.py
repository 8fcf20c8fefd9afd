"""Embeddings in parts: what is done is kept, and several processes share the rest."""

from __future__ import annotations

import fcntl
import io
import json
import os
from typing import Any, Iterator

import numpy as np

from gitloss import files
from gitloss.errors import check, one_line

PART = 4096  # images


class Parts:
    """The embeddings of a source in files, one for each PART images.

    Args:
      folder: where they are.
      facts: what they depend on; a folder of other facts is refused.
      count: number of images.

    Raises:
      ValueError: the folder has parts of other facts.
      OSError: it cannot be written.
    """

    def __init__(self, folder: str, facts: dict[str, Any], count: int) -> None:
        self._folder, self._count = folder, count
        self.numbers = range(-(-count // PART))
        os.makedirs(folder, exist_ok=True)
        content = json.dumps(facts, sort_keys=True)
        path = os.path.join(folder, 'facts.json')
        with self.gathering():  # several processes may begin at once
            if not os.path.isfile(path):
                files.write_atomically(path, content)
        found = files.read(path, 1 << 20).decode('utf-8', 'replace')
        received = f'parts of others: {one_line(found, 300)}'
        check(found == content, folder, 'parts of the same images and flags', received)

    def range_of(self, number: int) -> tuple[int, int]:
        """(first image of a part, end)."""
        return number * PART, min((number + 1) * PART, self._count)

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, f'part-{number:05}.npy')

    def claimed(self) -> Iterator[int]:
        """The parts that are missing and that no other process has claimed. One at a time is
        claimed, until the next one or the end of the process.
        """
        for number in self.numbers:
            if os.path.isfile(self._path(number)):
                continue
            with _Lock(os.path.join(self._folder, f'part-{number:05}.lock')) as is_ours:
                if is_ours and not os.path.isfile(self._path(number)):
                    yield number

    def write(self, number: int, rows: np.ndarray) -> None:
        """Saves a part, float32 [k, dim]."""
        content = io.BytesIO()
        np.save(content, np.asarray(rows, np.float32))
        files.write_atomically(self._path(number), content.getvalue())

    def read(self) -> Iterator[np.ndarray]:
        """All parts.

        Raises:
          ValueError: one is damaged.
        """
        for number in self.numbers:
            start, stop = self.range_of(number)
            path = self._path(number)
            try:
                rows = np.load(io.BytesIO(files.read(path)), allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise ValueError(f'{path}: expected embeddings. Received: {error}')
            check(len(rows) == stop - start, path, f'{stop - start} embeddings', len(rows))
            yield rows

    @property
    def are_complete(self) -> bool:
        """Whether all parts are there."""
        return all(os.path.isfile(self._path(number)) for number in self.numbers)

    def gathering(self) -> Any:
        """A context that one process at a time is in, to put the parts together: whether the folder
        is still there.
        """
        return _Lock(os.path.join(self._folder, 'gather.lock'), waits=True)

    def remove(self) -> None:
        """Removes the folder."""
        files.remove(self._folder)


class _Lock:
    """A context with the lock of a file: whether it is ours. One that `waits` gets it, unless the
    folder is gone.
    """

    _file: Any = None

    def __init__(self, path: str, waits: bool = False) -> None:
        self._path = path
        self._operation = fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB)

    def __enter__(self) -> bool:
        try:
            self._file = files.append(self._path)
        except FileNotFoundError:  # another process has put the parts together
            return False
        try:
            fcntl.flock(self._file, self._operation)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: one process alone
            pass
        return True

    def __exit__(self, *_: Any) -> None:
        if self._file:
            self._file.close()
