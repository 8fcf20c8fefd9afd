"""The table of centers in shards: each worker has the centers of a range of the classes."""

from __future__ import annotations

from typing import Callable, Sequence

from gitloss.backend import Tensor, tf
from gitloss.centers import CenterTable, same_class, steps_of
from gitloss.sharding.ranges import ClassRange
from gitloss.sharding.variables import Shard, shard_variable


class ShardedCenterTable(CenterTable):
    """The centers of one range of the classes, for batches of all classes.

    Args:
      num_classes: of all workers.
      places: the classes of each worker.
      rank: of this worker.
      reduce: the sums over all workers of a list of tensors.
      alpha, distance: as of `CenterTable`.
      has_unique: whether the device has the operation Unique, which an NPU has not.

    Attributes:
      centers: the variable, float32 [part.size, dim].
      updates: the variable, int32 [part.size].
    """

    def __init__(
        self,
        num_classes: int,
        places: Sequence[ClassRange],
        rank: int,
        reduce: Callable[[list[Tensor]], list[Tensor]],
        alpha: float = 0.5,
        distance: str = 'euclidean',
        has_unique: bool = True,
        **kwargs: str,
    ) -> None:
        super().__init__(num_classes, alpha, distance, **kwargs)
        self._places, self.part, self._reduce = places, places[rank], reduce
        self._has_unique = has_unique

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = [self.part.size, int(input_shape[-1])]

        def variable(name: str, shape: list[int], dtype: tf.DType) -> Tensor:
            shard = Shard(f'{self.name}/{name}', self.num_classes, self._places, by_rows=True)
            return shard_variable(f'{self.name}/{name}', shard, shape, dtype, trainable=False)

        self.centers = variable('centers', shape, tf.float32)
        self.updates = variable('updates', shape[:1], tf.int32)
        self._variables, self.built = [self.centers, self.updates], True

    @property
    def weights(self) -> list[Tensor]:
        return self._variables

    def _rows_of(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(row of each label, 0 if it is of another worker; whether it is of this one)."""
        is_owned = self.part.has(labels)
        return tf.where_v2(is_owned, labels - self.part.first, 0), is_owned

    def rows(self, labels: Tensor) -> Tensor:
        """As `CenterTable.rows`. The sum over the workers, of which one has the row and the others
        zeros, is exact.
        """
        rows, is_owned = self._rows_of(labels)
        own = tf.where_v2(is_owned[:, None], tf.gather(self.centers, rows), 0.0)
        return tf.stop_gradient(self._reduce([own])[0])

    def rows_after(self, before: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        """As `CenterTable.rows_after`, without another message to the workers."""
        steps = steps_of(embeddings, labels, before, self.alpha, self.distance)
        steps = tf.cast(steps, before.dtype)
        if not self._has_unique:
            return before - tf.matmul(same_class(labels, before.dtype), steps)
        # 2 batch dim additions; the product has 2 batch^2 dim operations.
        places = tf.unique(labels)[1]
        sums = tf.math.unsorted_segment_sum(steps, places, tf.size(labels))
        return before - tf.gather(sums, places)

    def update(
        self, embeddings: Tensor, labels: Tensor, own_centers: Tensor | None = None
    ) -> Tensor:
        """As `CenterTable.update`; centers of other workers stay."""
        own_centers = self.rows(labels) if own_centers is None else own_centers
        steps = steps_of(embeddings, labels, own_centers, self.alpha, self.distance)
        rows, is_owned = self._rows_of(labels)
        return self.subtract(
            rows,
            tf.where_v2(is_owned[:, None], tf.cast(steps, tf.float32), 0.0),
            tf.cast(is_owned, tf.int32),
        )

    def set_rows(self, labels: Tensor, rows: Tensor) -> Tensor:
        """As `CenterTable.set_rows`, for classes of all workers."""
        places, is_owned = self._rows_of(labels)
        # Those of other workers repeat one of this worker's, or a center that stays.
        chosen = tf.argmax(tf.cast(is_owned, tf.int32))
        kept = tf.where_v2(is_owned[chosen], rows[chosen], tf.gather(self.centers, 0))
        places = tf.where_v2(is_owned, places, places[chosen])
        return super().set_rows(places, tf.where_v2(is_owned[:, None], rows, kept[None, :]))

    def moved(self) -> Tensor:
        own = tf.cast(super().moved(), tf.float32)
        return self._reduce([own])[0]
