"""The record files in which insightface's sets of faces come: train.rec and train.idx, read without
MXNet.

A frame is `<II` of a magic number and a word: flag << 29 | length; then `length` bytes, padded to
4. Flag 0: a whole record. 1, 2, 3: its first part, a middle one, its last; the magic number stood
between the parts. A record is `<IfQQ`, that is (flag, label, id, id2), then `flag` labels as
float32, which take the place of the one before, then the encoded image. The index has a line
`key<TAB>offset` for each record. Record 0 may be a header of two labels [n + 1, ...]: the images
are then those of the keys 1 ... n, and records of identities follow.
"""

from __future__ import annotations

import os
import struct
from typing import Iterator

import numpy as np

from gitloss import files
from gitloss.data.images import ImageSource
from gitloss.data.texts import Labels
from gitloss.errors import check, one_line

_MAGIC = 0xCED7230A
_JOINT = struct.pack('<I', _MAGIC)
_FRAME = struct.Struct('<II')
_HEADER = struct.Struct('<IfQQ')
_ROWS = 4096  # of the index that are lists of Python at a time


class _Records:
    """The records of a file, by offset."""

    def __init__(self, path: str) -> None:
        self._file, self._shown = files.Reader(path), one_line(path, 5000)

    def record(self, offset: int, key: int, limit: int = 1 << 29) -> bytes:
        """A record, or at least its first `limit` bytes; all of its parts must be there."""
        parts: list[bytes] = []
        while True:
            flag, part, offset = self._part(offset, key, limit)
            is_next = flag in ((2, 3) if parts else (0, 1))
            check(is_next, self.where(key), 'parts in order', f'the flag {flag}')
            parts.append(part)
            if flag in (0, 3):
                return _JOINT.join(parts)

    def where(self, key: int) -> str:
        return f'{self._shown}: record {key}'

    def _part(self, offset: int, key: int, limit: int) -> tuple[int, bytes, int]:
        """(flag, the first bytes of the part, offset of the next frame)."""
        head = self._file.read(offset, _FRAME.size).ljust(_FRAME.size, b'\0')
        magic, word = _FRAME.unpack(head)
        expected = f'a frame of RecordIO at {offset}, as the index says'
        check(magic == _MAGIC, self.where(key), expected, f'the bytes {head[:4].hex()}')
        length = word & (1 << 29) - 1
        start, there = offset + _FRAME.size, self._file.size
        end = start + length
        check(end <= there, self.where(key), f'a file of {end} bytes', f'{there}: it is cut short')
        return word >> 29, self._file.read(start, min(length, limit)), end + -length % 4


def _split(record: bytes, where: str) -> tuple[int, float, int]:
    """(flag, label, where the image begins) of a record."""
    check(len(record) >= _HEADER.size, where, f'{_HEADER.size} bytes of header', len(record))
    flag, label, _, _ = _HEADER.unpack_from(record)
    start = _HEADER.size + 4 * flag
    if flag:
        check(len(record) >= _HEADER.size + 4, where, f'{flag} labels', f'{len(record)} bytes')
        (label,) = struct.unpack_from('<f', record, _HEADER.size)
    return flag, label, start


class RecordSource(ImageSource):
    """The images of a record file; see `open_recordio`.

    Args:
      path: the file of records; its index ends in .idx.
      image_shape: (height, width, channels) of what `read` returns.
    """

    def __init__(self, path: str, image_shape: tuple[int, ...]) -> None:
        self._records, labels = _Records(path), Labels()
        entries = _index(os.path.splitext(path)[0] + '.idx')
        first = entries[0].tolist()
        flag, last, _ = self._split(*first)
        if first[0] == 0 and flag:
            check(last >= 1, self._records.where(0), 'the number of records', last)
            entries = entries[(entries[:, 0] >= 1) & (entries[:, 0] < last)]
        for start in range(0, len(entries), _ROWS):
            for key, offset in entries[start : start + _ROWS].tolist():
                labels.append(self._name(self._split(key, offset)[1], key))
        super().__init__(path, *labels.sorted(), image_shape)
        self._keys, self._offsets = entries.T.copy()

    def _split(self, key: int, offset: int) -> tuple[int, float, int]:
        record = self._records.record(offset, key, limit=_HEADER.size + 4)
        return _split(record, self._records.where(key))

    def _name(self, label: float, key: int) -> str:
        is_whole = 0 <= label < 1 << 24 and label == int(label)  # not for NaN
        check(is_whole, self._records.where(key), 'a label from 0 on, a whole number', label)
        return str(int(label))

    def where(self, index: int) -> str:
        return self._records.where(int(self._keys[index]))

    def encoded(self, index: int) -> bytes:
        record = self._records.record(int(self._offsets[index]), int(self._keys[index]))
        return record[_split(record, self.where(index))[2] :]

    def catalogue(self) -> Iterator[bytes]:
        yield self._keys.tobytes()
        yield self._offsets.tobytes()


def _index(path: str) -> np.ndarray:
    """The pairs (key, offset) of an index, in the order of the keys: int64 [n, 2], n >= 1."""
    shown, expected = one_line(path, 5000), 'lines of a key and an offset'
    content = files.read(path, 1 << 32)
    rest = content.translate(None, b'0123456789\t\r\n ')
    check(not rest, shown, expected, repr(rest[:20]))
    values = np.fromstring(content.decode('ascii'), np.int64, sep=' ')
    check(len(values) and len(values) % 2 == 0, shown, expected, f'{len(values)} numbers')
    pairs = values.reshape(-1, 2)
    pairs = pairs[np.argsort(pairs[:, 0], kind='stable')]
    twice = pairs[1:, 0][pairs[1:, 0] == pairs[:-1, 0]]
    check(not len(twice), shown, 'each key once', f'{twice[:1].tolist()} twice')
    return pairs


def open_recordio(path: str, image_shape: tuple[int, ...]) -> RecordSource:
    """The images of `train.rec`, of insightface or other users of MXNet.

    Identities are the numbers in the records: '0', '1', ... The header of every record is read.

    Args:
      path: a folder with train.rec and train.idx, or a file of records with an index beside it.
      image_shape: (height, width, channels) to which images are scaled.

    Raises:
      ValueError: a damaged or shortened file, an index of another file, a label that is no whole
        number, no images.
      OSError: a file cannot be read.
    """
    return RecordSource(os.path.join(path, 'train.rec') if os.path.isdir(path) else path, image_shape)
