"""TFRecord shards of tf.train.Example: `image/encoded`, `image/class/label`, `image/class/text`."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import zlib
from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from gitloss import files
from gitloss.data.images import ImageSource
from gitloss.data.shards import (
    FRAME,
    MANIFEST,
    START,
    Index,
    feature,
    index_path,
    read_index,
    records,
)
from gitloss.data.texts import Labels
from gitloss.errors import check, log, one_line, reason

_OPEN_FILES = 64  # shards that are kept open
_NAME = re.compile(r'.*\.tfrecords?(-[0-9]+-of-[0-9]+)?')


class Shard(NamedTuple):
    """A file of records and where they are."""

    path: str
    table: Index


class ShardSource(ImageSource):
    """The images of TFRecord shards, read by their indexes; see `open_tfrecord`.

    Args:
      path: of the folder, for messages.
      shards: the files.
      names: the name of each label.
      image_shape: (height, width, channels) of what `read` returns.
    """

    def __init__(
        self, path: str, shards: Sequence[Shard], names: Sequence[str], image_shape: tuple[int, ...]
    ) -> None:
        labels = np.concatenate([np.zeros(0, np.int32), *(each.table.labels for each in shards)])
        super().__init__(path, labels, names, image_shape)
        self._shards = list(shards)
        self._ends = np.cumsum([len(each.table.labels) for each in shards])
        # A file is closed once it is neither among the last used nor being read by a thread.
        self._reader = functools.lru_cache(maxsize=_OPEN_FILES)(files.Reader)

    def _place(self, index: int) -> tuple[Shard, int]:
        """(the shard of an image, its number there)."""
        number = int(np.searchsorted(self._ends, index, 'right'))
        shard = self._shards[number]
        return shard, index - int(self._ends[number]) + len(shard.table.labels)

    def where(self, index: int) -> str:
        shard, number = self._place(index)
        return f'{shard.path}: record {number}'

    def encoded(self, index: int) -> bytes:
        shard, number = self._place(index)
        start, end = shard.table.offsets[number : number + 2].tolist()
        record = self._reader(shard.path).read(start + START, end - start - FRAME)
        where = one_line(self.where(index), 5000)
        received = 'other bytes: the shard is damaged, or the index is that of another shard'
        is_same = zlib.crc32(record) == shard.table.checksums[number]
        check(is_same, where, 'the record that the index describes', received)
        return feature(record, where).get('image/encoded', b'')

    def catalogue(self) -> Iterator[bytes]:
        for shard in self._shards:
            yield shard.table.offsets.tobytes()
            yield shard.table.checksums.tobytes()


def open_tfrecord(path: str, image_shape: tuple[int, ...]) -> ShardSource:
    """The images of TFRecord shards: of a folder that `python -m trainers.convert` wrote, of any
    other folder, or of a single file.

    Without the manifest and the indexes of a conversion all shards are read once. The identity of
    an image is then its text, in the order of the labels, or its label if there is no text.

    Args:
      path: the folder, or a shard.
      image_shape: (height, width, channels) to which images are scaled.

    Raises:
      ValueError: an unfinished conversion, a shard that is damaged or cut short, an index of
        another shard, no images.
      OSError: a file cannot be read.
    """
    if os.path.isfile(os.path.join(path, MANIFEST)):
        return ShardSource(path, *_described(path), image_shape)
    return ShardSource(path, *_scanned(_paths(path)), image_shape)


def _paths(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    names, shown = sorted(os.listdir(path)), one_line(path, 5000)
    found = [os.path.join(path, name) for name in names if _NAME.fullmatch(name)]
    check(found, shown, 'files *.tfrecord', 'none')
    is_part = any(os.path.exists(index_path(name)) for name in found)
    expected = f'{MANIFEST}, which trainers.convert writes at its end'
    check(not is_part, shown, expected, 'a conversion without an end: the same command completes it')
    return found


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a conversion: `identities`, a list of names, and `shards`, a list of
    {'file', 'images', 'bytes', 'sha256'}.

    Raises:
      ValueError: it is damaged.
      OSError: it cannot be read.
    """
    path = os.path.join(folder, MANIFEST)
    try:
        manifest = json.loads(files.read(path, 1 << 32).decode('utf-8'))
        names, shards = manifest['identities'], manifest['shards']
        is_valid = (
            all(type(name) is str for name in names)
            and len(set(names)) == len(names)
            and all(os.path.basename(each['file']) == each['file'] for each in shards)
            and all(type(each[key]) is int for each in shards for key in ('images', 'bytes'))
            and all(type(each['sha256']) is str for each in shards)
        )
        error = '' if is_valid else 'other values'
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as problem:
        error = reason(problem)
    check(not error, one_line(path, 5000), 'the manifest of a conversion', error)
    return manifest


def described_shard(folder: str, entry: dict[str, Any], classes: int) -> Shard:
    """A shard and its index as the manifest describes them.

    Args:
      folder: of the manifest.
      entry: of the shard in the manifest.
      classes: the number of identities.

    Raises:
      ValueError: a length, a checksum or a label is another.
      OSError: a file cannot be read.
    """
    path = os.path.join(folder, entry['file'])
    length, shown = os.stat(path).st_size, one_line(path, 5000)
    check(length == entry['bytes'], shown, f'{entry["bytes"]} bytes as in {MANIFEST}', length)
    index = read_index(path)
    is_of_it = (
        index.facts.get('shard') == entry['sha256']
        and index.offsets[-1] == length
        and len(index.labels) == entry['images']
        and ((index.labels >= 0) & (index.labels < classes)).all()
    )
    name = one_line(index_path(path), 5000)
    check(is_of_it, name, f'the index of {entry["file"]}', 'that of another shard')
    return Shard(path, index)


def _described(folder: str) -> tuple[list[Shard], list[str]]:
    manifest = read_manifest(folder)
    names = manifest['identities']
    return [described_shard(folder, each, len(names)) for each in manifest['shards']], names


class _Identities:
    """The identities of records with a label, a text or both, which must agree."""

    def __init__(self) -> None:
        self.labels = Labels()
        self._numbers: dict[str, int | None] = {}
        self._texts: dict[Any, str] = {}

    def append(self, values: dict[str, Any], where: str) -> None:
        number, text = values.get('image/class/label'), values.get('image/class/text', b'')
        is_known = type(number) in (int, type(None)) and type(text) is bytes
        is_known = is_known and bool(text or number is not None)
        expected = 'image/class/label, a number, or image/class/text, bytes'
        check(is_known, where, expected, ', '.join(sorted(values)) or 'none')
        name = text.decode('utf-8', 'surrogateescape') or str(number)
        agree = self._numbers.setdefault(name, number) == number
        agree = agree and self._texts.setdefault(name if number is None else number, name) == name
        check(agree, where, 'one text for each label', f'label {number}, text {one_line(name)!r}')
        self.labels.append(name)

    def sorted(self) -> tuple[np.ndarray, list[str]]:
        has_all = None not in self._numbers.values()
        return self.labels.sorted(self._numbers.__getitem__ if has_all else None)


def _scanned(paths: Sequence[str]) -> tuple[list[Shard], list[str]]:
    """Reads shards without an index."""
    identities, found = _Identities(), []
    log.info('reading %d TFRecord shards without an index', len(paths))
    for path in paths:
        offsets, checksums = [0], []
        for number, record in enumerate(records(path)):
            where = f'{one_line(path, 5000)}: record {number}'
            values = feature(record, where)
            is_image = type(values.get('image/encoded')) is bytes
            check(is_image, where, 'image/encoded, bytes', ', '.join(sorted(values)) or 'none')
            identities.append(values, where)
            offsets.append(offsets[-1] + FRAME + len(record))
            checksums.append(zlib.crc32(record))
        found.append((path, np.array(offsets, np.int64), np.array(checksums, np.uint32)))
    labels, names = identities.sorted()
    ends = itertools.accumulate(len(checksums) for _, _, checksums in found)
    return [
        Shard(path, Index(offsets, labels[end - len(checksums) : end], checksums))
        for (path, offsets, checksums), end in zip(found, ends)
    ], names
