"""Rows of a variable, written in pieces of one size."""

from __future__ import annotations

from typing import Any

import numpy as np

from gitloss.backend import Tensor, tf

PIECE_BYTES = 32 << 20


class Rows:
    """The rows of a variable [n, ...], in static shapes, as an NPU needs.

    Args:
      variable: the variable.
      limit: the most rows in a piece.
      copies: of a piece that are in memory together, all of which are at most PIECE_BYTES.

    Attributes:
      count: n.
      piece: rows in a piece.
      first: placeholder, the first row of a piece.
      read: the piece that begins there, [piece, ...].
    """

    def __init__(self, variable: Any, limit: int | None = None, copies: int = 1) -> None:
        self.count, *rest = variable.shape.as_list()
        row_bytes = int(np.prod(rest)) * variable.dtype.size
        self.piece = min(
            self.count, limit or self.count, max(1, PIECE_BYTES // (row_bytes * copies))
        )
        self._variable = variable
        self.first = tf.placeholder(tf.int32, [], name='first_row')
        begin = tf.concat([[self.first], tf.zeros([len(rest)], tf.int32)], 0)
        self.read = tf.slice(variable, begin, [self.piece, *rest])
        self._values = tf.placeholder(variable.dtype.base_dtype, [self.piece, *rest])
        self._write = self.written(self._values)

    def written(self, values: Tensor) -> Tensor:
        """An op that writes `values` [piece, ...] to the rows from `first` on."""
        return tf.raw_ops.ResourceScatterUpdate(
            resource=self._variable.handle,
            indices=self.first + tf.range(self.piece),
            updates=values,
        )

    def fill(self, session: Any, values: Any) -> None:
        """Writes all rows. values: (first row, number of rows) -> array of these rows."""
        for start in range(0, self.count, self.piece):
            first = min(start, self.count - self.piece)  # the last piece overlaps
            session.run(self._write, {self.first: first, self._values: values(first, self.piece)})
