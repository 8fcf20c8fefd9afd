"""Files of embeddings, written a part at a time: .npz, .parquet and .tfrecord."""

from __future__ import annotations

import io
import os
import zipfile
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence

import numpy as np

from gitloss import files
from gitloss.errors import check, one_line

_BLOCK = 1 << 16  # names that are arrays at a time


class Table(NamedTuple):
    """n embeddings to write.

    names: of the n images.
    classes: the names of the identities.
    labels: int32 [n], the identities of the images, by their places in `classes`.
    dim: of the embeddings.
    parts: () -> the embeddings in order, float32 [k, dim] at a time.
    """

    names: Sequence[str]
    classes: Sequence[str]
    labels: np.ndarray
    dim: int
    parts: Callable[[], Iterable[np.ndarray]]

    def rows(self) -> Iterator[tuple[slice, np.ndarray]]:
        """(where, embeddings) of each part."""
        start = 0
        for part in self.parts():
            yield slice(start, start + len(part)), part
            start += len(part)


def _texts(names: Sequence[str]) -> tuple[str, Iterator[np.ndarray]]:
    """(dtype of an array of them, its parts)."""
    width = max(map(len, names), default=1) or 1
    starts = range(0, len(names), _BLOCK)
    return f'<U{width}', (np.array(names[i : i + _BLOCK], f'<U{width}') for i in starts)


def _write_npz(path: str, table: Table) -> None:
    """The arrays names [n], embeddings float32 [n, dim], labels int32 [n] and classes [c]."""
    count = len(table.names)
    kind, names = _texts(table.names)
    classes_kind, classes = _texts(table.classes)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, dtype, shape, parts in (
            ('names', kind, (count,), names),
            ('embeddings', '<f4', (count, table.dim), table.parts()),
            ('labels', '<i4', (count,), [np.asarray(table.labels, '<i4')]),
            ('classes', classes_kind, (len(table.classes),), classes),
        ):
            header = io.BytesIO()
            facts = {'descr': dtype, 'fortran_order': False, 'shape': shape}
            np.lib.format.write_array_header_1_0(header, facts)
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
                member.write(header.getvalue())
                for part in parts:
                    member.write(np.ascontiguousarray(part, dtype).tobytes())


def _write_parquet(path: str, table: Table) -> None:
    """The columns name, identity and embedding, a list of float32; a row group for each part."""
    arrow, parquet = parquet_library()
    values = arrow.list_(arrow.float32(), table.dim)
    columns = [('name', arrow.string()), ('identity', arrow.string()), ('embedding', values)]
    schema = arrow.schema(columns)
    with parquet.ParquetWriter(path, schema) as writer:
        for where, part in table.rows():
            flat = arrow.array(np.ascontiguousarray(part, np.float32).reshape(-1))
            arrays = [
                arrow.array(table.names[where], arrow.string()),
                arrow.array([table.classes[i] for i in table.labels[where]], arrow.string()),
                arrow.FixedSizeListArray.from_arrays(flat, table.dim),
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def parquet_library() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet).

    Raises:
      ValueError: it is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        check(False, '.parquet', 'pyarrow to be installed', f'{error}; pip install "pyarrow>=12"')
    return pyarrow, parquet


def _write_tfrecord(path: str, table: Table) -> None:
    """Records of tf.train.Example: name, identity, embedding."""
    from gitloss.backend import tf

    def text(value: str) -> Any:
        encoded = value.encode('utf-8', 'surrogateescape')
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))

    with tf.io.TFRecordWriter(path) as writer:
        for where, part in table.rows():
            labels = table.labels[where]
            for name, label, row in zip(table.names[where], labels, part):
                feature = {
                    'name': text(name),
                    'identity': text(table.classes[label]),
                    'embedding': tf.train.Feature(float_list=tf.train.FloatList(value=row)),
                }
                features = tf.train.Features(feature=feature)
                writer.write(tf.train.Example(features=features).SerializeToString())


FORMATS: dict[str, Callable[[str, Table], None]] = {
    '.npz': _write_npz,
    '.parquet': _write_parquet,
    '.tfrecord': _write_tfrecord,
}


def check_format(path: str) -> None:
    """ValueError unless the name of a file ends as one of FORMATS, and its library is there."""
    ending = os.path.splitext(path)[1]
    expected = f'a file {", ".join(FORMATS)}'
    check(ending in FORMATS, '--out', expected, one_line(path, 500) or 'none')
    if ending == '.parquet':
        parquet_library()


def write_embeddings(path: str, table: Table) -> None:
    """Writes a file of embeddings, completely or not at all, in the format of its name.

    Raises:
      OSError: it cannot be written.
    """
    with files.complete(path) as temporary:
        FORMATS[os.path.splitext(path)[1]](temporary, table)
