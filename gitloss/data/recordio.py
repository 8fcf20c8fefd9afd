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

_JOINT = struct.pack('<I', 0xCED7230A)  # the magic number
_FRAME = struct.Struct('<II')
_HEADER = struct.Struct('<IfQQ')
_LABEL = struct.Struct('<f')
_BEGINNING = _HEADER.size + _LABEL.size  # of a record: with its first label
_ROWS = 4096  # of the index that are lists of Python at a time


class _Records:
    """The records of a file, by offset."""

    def __init__(self, path: str) -> None:
        self._file, self._shown = files.Reader(path), one_line(path, 5000)

    def record(self, offset: int, key: int, whole: bool = True) -> bytes:
        """A record, or at least the beginning that has the first label. All parts must be there."""
        parts: list[bytes] = []
        while True:
            flag, part, offset = self._part(offset, key, whole)
            if flag not in ((2, 3) if parts else (0, 1)):
                check(False, self.where(key), 'parts in order', f'the flag {flag}')
            parts.append(part)
            if flag in (0, 3):
                return _JOINT.join(parts)

    def where(self, key: int) -> str:
        return f'{self._shown}: record {key}'

    def _part(self, offset: int, key: int, whole: bool) -> tuple[int, bytes, int]:
        """(flag, the part or its beginning, offset of the next frame)."""
        content = self._file.read(offset, _FRAME.size + _BEGINNING)
        if not content.startswith(_JOINT) or len(content) < _FRAME.size:
            expected = f'a frame of RecordIO at {offset}, as the index says'
            check(False, self.where(key), expected, f'the bytes {content[:4].hex()}')
        _, word = _FRAME.unpack_from(content)
        start, length = offset + _FRAME.size, word & (1 << 29) - 1
        end, there = start + length, self._file.size
        if end > there:
            received = f'{there}: it is cut short'
            check(False, self.where(key), f'a file of {end} bytes', received)
        part = self._file.read(start, length) if whole else content[_FRAME.size :][:length]
        return word >> 29, part, end + -length % 4

    def header(self, record: bytes, key: int) -> tuple[int, float, int]:
        """(flag, label, where the image begins) of a record."""
        if len(record) < _HEADER.size:
            check(False, self.where(key), f'{_HEADER.size} bytes of header', len(record))
        flag, label, _, _ = _HEADER.unpack_from(record)
        if flag:
            if len(record) < _BEGINNING:
                check(False, self.where(key), f'{flag} labels', f'{len(record)} bytes')
            (label,) = _LABEL.unpack_from(record, _HEADER.size)
        return flag, label, _HEADER.size + _LABEL.size * flag


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
        flag, last, _ = self._header(*first)
        if first[0] == 0 and flag:
            check(last >= 1, self._records.where(0), 'the number of records', last)
            entries = entries[(entries[:, 0] >= 1) & (entries[:, 0] < last)]
        for start in range(0, len(entries), _ROWS):
            for key, offset in entries[start : start + _ROWS].tolist():
                labels.append(self._name(self._header(key, offset)[1], key))
        super().__init__(path, *labels.sorted(), image_shape)
        self._keys, self._offsets = entries.T.copy()

    def _header(self, key: int, offset: int) -> tuple[int, float, int]:
        return self._records.header(self._records.record(offset, key, whole=False), key)

    def _name(self, label: float, key: int) -> str:
        if not (0 <= label < 1 << 24 and label == int(label)):  # so for NaN
            check(False, self._records.where(key), 'a label from 0 on, a whole number', label)
        return str(int(label))

    def where(self, index: int) -> str:
        return self._records.where(int(self._keys[index]))

    def encoded(self, index: int) -> bytes:
        key = int(self._keys[index])
        record = self._records.record(int(self._offsets[index]), key)
        return record[self._records.header(record, key)[2] :]

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
