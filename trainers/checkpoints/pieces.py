"""Tensors over all classes in a checkpoint, written from shards and read into others.

A checkpoint has one tensor for all classes, whatever the number of shards that it was written from.
The chief writes it and reads it; rows travel between the workers in pieces of bounded size, so that
no common file system is needed, and no worker ever has more than a piece of another one's shard.
"""

from __future__ import annotations

from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from gitloss.backend import tf
from gitloss.sharding import Rows, Shard


class Slice(NamedTuple):
    """Rows of a tensor over all classes: its name and shape, the first row, the rows."""

    name: str
    shape: tuple[int, ...]
    first: int
    rows: np.ndarray

    @property
    def spec(self) -> str:
        """What TensorFlow's files call these rows."""
        return _spec(self.shape, self.first, len(self.rows))


def _spec(shape: Sequence[int], first: int, count: int) -> str:
    places = [f'{first},{count}', *(f'0,{size}' for size in shape[1:])]
    return f'{" ".join(map(str, shape))} {":".join(places)}'


class Pieces:
    """A shard of this worker and, in the same place, those of the other workers.

    Args:
      group: the workers.

    Attributes:
      name, shape: of the whole tensor.
    """

    def __init__(self, variable: Any, shard: Shard, group: Any) -> None:
        self._group, self._places = group, shard.places
        self.name, self.shape = shard.name, (shard.num_classes, *variable.shape.as_list()[1:])
        # All workers send as many rows, of which one may have a class less.
        self._rows = Rows(variable, min(place.size for place in shard.places), copies=group.size)
        self._gathered = group.all_gather(self._rows.read)
        with tf.device('/cpu:0'):
            self._path = tf.placeholder(tf.string, [], name='path')
            self._where = tf.placeholder(tf.string, [1], name='where')
            dtype = variable.dtype.base_dtype
            self._values = tf.placeholder(dtype, [None, *self.shape[1:]])
            self._write = tf.raw_ops.SaveV2(
                prefix=self._path,
                tensor_names=[self.name],
                shape_and_slices=self._where,
                tensors=[self._values],
            )
            self._read = tf.raw_ops.RestoreV2(
                prefix=self._path,
                tensor_names=[self.name],
                shape_and_slices=self._where,
                dtypes=[dtype],
            )[0]
        self._receive = self._assign = None
        if group.size > 1:
            self._build_receiving(dtype)

    def _build_receiving(self, dtype: Any) -> None:
        piece = [self._rows.piece, *self.shape[1:]]
        with tf.device('/cpu:0'):
            buffer = tf.get_variable(
                f'{self.name}_piece_{len(tf.global_variables())}',
                piece,
                dtype,
                tf.zeros_initializer(),
                trainable=False,
                use_resource=True,
                collections=[tf.GraphKeys.LOCAL_VARIABLES],
            )
            self._sent = tf.placeholder(dtype, piece)
            self._send = tf.assign(buffer, self._sent)
        self._receive = self._group.broadcast([buffer])
        self._assign = self._rows.written(buffer.read_value())

    @property
    def _ends(self) -> list[tuple[int, int]]:
        return [(place.first, place.size) for place in self._places]

    def gathered(self, session: Any) -> Iterator[Slice]:
        """The rows of all workers, in pieces. All workers iterate to the end together."""
        piece = self._rows.piece
        for start in range(0, max(place.size for place in self._places), piece):
            own = min(start, self._rows.count - piece)
            values, _ = self._group.run(session, self._gathered, {self._rows.first: own})
            for rank, (first, count) in enumerate(self._ends):
                rows = values[rank * piece : (rank + 1) * piece]
                rows = rows[start - min(start, count - piece) :]  # the last piece overlaps
                if start < count:
                    yield Slice(self.name, self.shape, first + start, rows)

    def save(self, session: Any, path: str, rows: Slice) -> None:
        """Writes rows into a file of their own."""
        session.run(
            self._write, {self._path: path, self._where: [rows.spec], self._values: rows.rows}
        )

    def restore(self, session: Any, path: str) -> None:
        """Reads the shards of all workers. All workers call it together, the chief has the file."""

        def read(first: int, count: int) -> np.ndarray:
            where = [_spec(self.shape, first, count)]
            return session.run(self._read, {self._path: path, self._where: where})

        own = self._places[self._group.rank].first
        if self._group.size == 1:
            self._rows.fill(session, lambda first, count: read(own + first, count))
            return
        piece = self._rows.piece
        for rank, (first, count) in enumerate(self._ends):
            for start in range(0, count, piece):
                start = min(start, count - piece)
                if self._group.is_chief:
                    session.run(self._send, {self._sent: read(first + start, piece)})
                self._group.run(session, self._receive)
                if rank == self._group.rank:
                    session.run(self._assign, {self._rows.first: start})
