"""TFRecord shards of images: their records, their indexes, and the manifest of a folder of them.

TensorFlow's own reader and writer see to the format and to its checksums (CRC-32C). They read from
the beginning only, so an index lies beside each shard: NAME.tfrecord.index, a line of JSON and the
arrays of an Index. Its checksums are those of zlib, which are fast in Python.

TensorFlow, which takes seconds to import, is imported where a record is read or written.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Iterator, NamedTuple

import numpy as np

from gitloss import files
from gitloss.errors import check, one_line, reason

MANIFEST = 'manifest.json'
FRAME = 16  # bytes around a record: its length, two checksums
START = 12  # of a record in its frame
_TYPES = (('offsets', '<i8'), ('labels', '<i4'), ('checksums', '<u4'))


class Index(NamedTuple):
    """Where the records of a shard are.

    offsets: int64 [n + 1], of the frames, and the length of the shard.
    labels: int32 [n].
    checksums: uint32 [n], the CRC-32 of zlib of each record.
    facts: plain JSON values: what the writer of the shard wants to find again.
    """

    offsets: np.ndarray
    labels: np.ndarray
    checksums: np.ndarray
    facts: dict[str, Any] = {}

    def tobytes(self) -> bytes:
        """The content of the file beside the shard."""
        arrays = b''.join(getattr(self, name).astype(kind).tobytes() for name, kind in _TYPES)
        head = {
            'records': len(self.labels),
            'sha256': hashlib.sha256(arrays).hexdigest(),
            **self.facts,
        }
        return json.dumps(head).encode('ascii') + b'\n' + arrays


def index_path(path: str) -> str:
    """The path of the index of a shard."""
    return path + '.index'


def read_index(path: str) -> Index:
    """The index of the shard `path`.

    Raises:
      ValueError: it is damaged.
      OSError: it cannot be read.
    """
    name = index_path(path)
    shown, expected = one_line(name, 5000), 'an undamaged index of a shard'
    head, _, arrays = files.read(name, 1 << 32).partition(b'\n')
    try:
        facts = json.loads(head.decode('ascii'))
        count, digest = int(facts.pop('records')), facts.pop('sha256')
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'{shown}: expected {expected}. Received: {reason(error)}')
    check(hashlib.sha256(arrays).hexdigest() == digest, shown, expected, 'other checksums')
    sizes = [(count + 1) * 8, count * 4, count * 4]
    check(count >= 0 and len(arrays) == sum(sizes), shown, expected, f'{len(arrays)} bytes')
    parts = (arrays[: sizes[0]], arrays[sizes[0] : -sizes[2]], arrays[-sizes[2] :])
    offsets, labels, checksums = map(np.frombuffer, parts, [kind for _, kind in _TYPES])
    index = Index(offsets, labels, checksums, facts)
    is_order = index.offsets[0] == 0 and (np.diff(index.offsets) >= FRAME).all()
    check(is_order, shown, expected, 'offsets that do not rise')
    return index


def records(path: str) -> Iterator[bytes]:
    """The records of a shard from its beginning, each checked by its CRC-32C.

    Raises:
      ValueError: the shard is damaged or cut short.
      OSError: it cannot be read.
    """
    from gitloss.backend import tf

    size, place, number = files.Reader(path).size, 0, 0
    shown, expected = one_line(path, 5000), 'an undamaged record of TFRecord'
    try:
        for record in tf.io.tf_record_iterator(path):
            yield record
            number, place = number + 1, place + FRAME + len(record)
    except tf.errors.OpError as error:
        raise ValueError(f'{shown}: record {number}: expected {expected}. Received: {reason(error)}')
    # TensorFlow takes the first bytes of a frame for the end of the file.
    check(place == size, f'{shown}: record {number}', expected, f'{size - place} bytes, cut short')


def feature(record: bytes, where: str) -> dict[str, Any]:
    """{name: the first value} of the features of a serialised tf.train.Example.

    Raises:
      ValueError: it is no Example.
    """
    from gitloss.backend import tf

    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # noqa: BLE001 - protobuf's class of it has moved twice
        raise ValueError(f'{where}: expected a tf.train.Example. Received: {reason(error)}')
    values = {}
    for name in features:
        kind = features[name].WhichOneof('kind')
        found = getattr(features[name], kind).value if kind else []
        if found:
            values[name] = found[0]
    return values


def example(image: bytes, label: int, name: str) -> bytes:
    """The record of an image: a serialised tf.train.Example."""
    from gitloss.backend import tf

    def of(**kinds: Any) -> Any:
        return tf.train.Feature(**kinds)

    values = {
        'image/encoded': of(bytes_list=tf.train.BytesList(value=[image])),
        'image/class/label': of(int64_list=tf.train.Int64List(value=[label])),
        'image/class/text': of(
            bytes_list=tf.train.BytesList(value=[name.encode('utf-8', 'surrogateescape')])
        ),
    }
    features = tf.train.Features(feature=values)
    return tf.train.Example(features=features).SerializeToString(deterministic=True)
