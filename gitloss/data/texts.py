"""Lines of text files, and names of images and identities, by the million."""

from __future__ import annotations

import array
import os
import re
from typing import Any, Callable, Iterable, Iterator, Sequence, overload

import numpy as np

from gitloss import files


def text_lines(path: str) -> Iterator[str]:
    """The stripped lines of a regular file in UTF-8; an empty text for a comment, which begins with
    #.
    """
    with files.open_regular(path, os.O_RDONLY, 'rb') as file:
        for number, content in enumerate(file):
            text = content.decode('utf-8', 'surrogateescape')
            text = text.lstrip('\ufeff' if number == 0 else '').strip()
            yield '' if text.startswith('#') else text


class Texts(Sequence[str]):
    """A sequence of texts that takes their bytes and 8 more for each, where a list takes 60 more.

    File names that are no UTF-8 come out as os.listdir gives them.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes, self._ends = bytearray(), array.array('q', [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Adds a text at the end."""
        self._bytes += text.encode('utf-8', 'surrogateescape')
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        content = self._bytes[self._ends[place] : self._ends[place + 1]]
        return content.decode('utf-8', 'surrogateescape')

    def tobytes(self) -> bytes:
        """All of them, with their lengths: equal for equal sequences only."""
        return self._ends.tobytes() + bytes(self._bytes)


class Labels:
    """The labels of images whose identities are named one after the other."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._found = array.array('i')

    def append(self, name: str) -> None:
        """Adds the identity of the next image."""
        self._found.append(self._numbers.setdefault(name, len(self._numbers)))

    def sorted(self, key: Callable[[str], Any] | None = None) -> tuple[np.ndarray, list[str]]:
        """(labels int32 [n], names of the labels). They are in the order of `key`, a function of
        names; without one, by their values if all are numbers, else by their texts.
        """
        are_numbers = all(re.fullmatch('[0-9]{1,18}', name) for name in self._numbers)
        by_value = (lambda name: (int(name), name)) if are_numbers else None
        names = sorted(self._numbers, key=key or by_value)
        rank = np.empty(len(names), np.int32)
        rank[[self._numbers[name] for name in names]] = np.arange(len(names))
        return rank[np.array(self._found, np.int32)], names
