"""Tensors over all classes in a checkpoint, written from shards and read into others.

A checkpoint has one tensor for all classes, whatever the number of shards that it was written from.
The chief writes it and reads it; rows travel between the workers in pieces of bounded size. So no
common file system is needed, and no worker has more than a piece of another one's shard.
"""

from __future__ import annotations

from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from gitloss.backend import Tensor, tf
from gitloss.sharding import Shard, load

# Of all workers together. A message takes several copies, and the process keeps their memory.
PIECE_BYTES = 8 << 20


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
        self._variable, self._group = variable, group
        self._ends = [(place.first, place.size) for place in shard.places]
        rest = variable.shape.as_list()[1:]
        self.name, self.shape = shard.name, (shard.num_classes, *rest)
        row_bytes = int(np.prod(rest)) * variable.dtype.size * group.size
        # All workers send as many rows, though one may have a class less.
        self._size = min(max(1, PIECE_BYTES // row_bytes), *(count for _, count in self._ends))
        self._dtype = variable.dtype.base_dtype
        with tf.device('/cpu:0'):
            self._start = tf.placeholder(tf.int32, [], name='start')
            self._some = (  # without a copy of the whole
                tf.gather(variable, self._start + tf.range(self._size))
                if shard.by_rows
                else tf.slice(variable, [self._start] + [0] * len(rest), [self._size, *rest])
            )
            self._path = tf.placeholder(tf.string, [], name='path')
            self._where = tf.placeholder(tf.string, [None], name='where')
            self._values = [tf.placeholder(self._dtype, [None, *rest]) for _ in self._ends]
            self._writes = {len(parts): self._written(len(parts)) for _, parts in self._steps()}
            (self._read,) = tf.raw_ops.RestoreV2(dtypes=[self._dtype], **self._files(1))
            self._take = tf.assign(variable, tf.reshape(self._read, variable.shape))
        if group.size > 1:
            self._build_messages([self._size, *rest])

    def _files(self, slices: int) -> dict[str, Any]:
        return {
            'prefix': self._path,
            'tensor_names': [self.name] * slices,
            'shape_and_slices': tf.reshape(self._where, [slices]),
        }

    def _written(self, slices: int) -> Tensor:
        return tf.raw_ops.SaveV2(tensors=self._values[:slices], **self._files(slices))

    def _steps(self) -> Iterator[tuple[int, list[tuple[int, int, int]]]]:
        """(first row of a piece, [(rank, first class, classes) of each worker that has it])."""
        for start in range(0, max(count for _, count in self._ends), self._size):
            yield start, [(rank, *end) for rank, end in enumerate(self._ends) if start < end[1]]

    def _build_messages(self, shape: list[int]) -> None:
        self._sent = tf.placeholder(self._dtype, shape)
        self._gathered = self._group.all_gather(self._sent)
        with tf.device('/cpu:0'):
            self._buffer = tf.get_variable(
                f'{self._variable.op.name}/piece',
                shape,
                self._dtype,
                tf.zeros_initializer(),
                trainable=False,
                use_resource=True,
                collections=[tf.GraphKeys.LOCAL_VARIABLES],
            )
            self._fill, self._piece = tf.assign(self._buffer, self._sent), self._buffer.read_value()
        self._broadcast = self._group.broadcast([self._buffer])

    def _slice(self, first: int, rows: np.ndarray) -> Slice:
        return Slice(self.name, self.shape, first, rows)

    def gathered(self, session: Any) -> Iterator[list[Slice]]:
        """The rows of all workers, in pieces. All workers iterate to the end together."""
        size, own_count = self._size, self._variable.shape.as_list()[0]
        for start, parts in self._steps():
            own = min(start, own_count - size)  # the last piece overlaps the one before
            piece = session.run(self._some, {self._start: own})
            if self._group.size > 1:
                piece, _ = self._group.run(session, self._gathered, {self._sent: piece})
            slices = []
            for rank, first, count in parts:
                new = start - min(start, count - size)
                rows = piece[rank * size : (rank + 1) * size][new:]
                slices.append(self._slice(first + start, rows))
            yield slices

    def save(self, session: Any, path: str, slices: Sequence[Slice]) -> None:
        """Writes rows into a file of their own."""
        values = dict(zip(self._values, (one.rows for one in slices)))
        where = [one.spec for one in slices]
        session.run(self._writes[len(slices)], {self._path: path, self._where: where, **values})

    def restore(self, session: Any, path: str) -> None:
        """Reads the shards of all workers. All workers call it together; the chief has the file."""
        group, size = self._group, self._size
        if group.is_chief:
            session.run(self._take, self._part(path, *self._ends[0]))
        if group.size > 1:
            session.run(self._buffer.initializer)  # HCCL reads it on every worker
        for rank, (first, count) in enumerate(self._ends[1:], 1):
            is_own = rank == group.rank
            rows = np.empty((count if is_own else 0, *self.shape[1:]), self._dtype.as_numpy_dtype)
            for start in range(0, count, size):
                start = min(start, count - size)
                if group.is_chief:
                    values = session.run(self._read, self._part(path, first + start, size))
                    session.run(self._fill, {self._sent: values})
                group.run(session, self._broadcast)
                if is_own:
                    rows[start : start + size] = session.run(self._piece)
            if is_own:
                load(self._variable, rows, session)

    def _part(self, path: str, first: int, count: int) -> dict[Any, Any]:
        return {self._path: path, self._where: [_spec(self.shape, first, count)]}
