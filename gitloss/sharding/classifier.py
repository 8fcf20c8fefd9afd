"""A classifier in shards: each worker has the weights of a contiguous range of the classes."""

from __future__ import annotations

import functools
from typing import Any, Callable, Sequence

import numpy as np

from gitloss import heads
from gitloss.backend import Tensor, tf
from gitloss.gradients import Observer
from gitloss.heads import Head
from gitloss.sharding.ranges import ClassRange, ClassRanges
from gitloss.sharding.sampling import Columns, all_columns, drawn, sampled_columns
from gitloss.sharding.softmax import ShardLogits, sharded_softmax
from gitloss.sharding.variables import Shard, load, shard_variable

_BLOCK = 1024  # classes whose initial weights are drawn together


class ShardedClassifier:
    """The layers from embeddings to logits, as `heads.Classifier`, for shards of the classes.

    Class weights are [classes, dim], so that a step can touch some of the classes only.

    Args:
      head, embedding_dim, slope, seed: as of `heads.Classifier`.
      ranges: of the shards of all workers.
      rank: of this worker.

    Attributes:
      head: as given.
      ranges: as given.
      shards: the variables with this worker's classes; `initialise` gives them their values.
      weights: all variables, all trainable.
      observer: of the features, as of `heads.Classifier`.
    """

    def __init__(
        self,
        head: Head,
        embedding_dim: int,
        ranges: ClassRanges,
        rank: int = 0,
        slope: float | None = None,
        seed: int = 1,
    ) -> None:
        self.head, self.ranges, self._dim, self._seed = head, ranges, embedding_dim, seed
        self.observer = Observer()
        self._prelu = None
        if head.margin_logits is None and slope is not None:
            self._prelu = heads.prelu(slope)
            heads.build(self._prelu, embedding_dim)
        self._parts, self._kernels, self._biases = [], [], []
        for number in range(ranges.each):
            places = ranges.shard(number)
            part = places[rank]
            self._parts.append(part)
            place = functools.partial(self._variable, number, places)
            self._kernels.append(place('class_weights', [part.size, embedding_dim]))
            if head.margin_logits is None:
                self._biases.append(place('bias', [part.size]))
        self.shards = self._kernels + self._biases
        self.weights = (self._prelu.weights if self._prelu else []) + self.shards

    def _variable(
        self, number: int, places: Sequence[ClassRange], name: str, shape: Sequence[int]
    ) -> Any:
        ranges = self.ranges
        by_rows = ranges.strata < ranges.num_classes
        shard = Shard(f'logits/{name}', ranges.num_classes, places, by_rows)
        return shard_variable(f'logits/part_{number}/{name}', shard, shape)

    def initialise(self, session: Any) -> None:
        """Gives the shards their initial values: class weights are uniform as Glorot's, a function
        of seed and class; biases are 0.
        """
        for part, kernel in zip(self._parts, self._kernels):
            load(kernel, self._drawn(part.first, part.size), session)
        session.run([bias.initializer for bias in self._biases])

    def _drawn(self, first: int, count: int) -> np.ndarray:
        """float32 [count, dim] of the classes from `first` on."""
        limit = np.sqrt(6.0 / (self._dim + self.ranges.num_classes))
        drawn_rows = np.empty((count, self._dim), np.float32)
        for block in range(first // _BLOCK, (first + count - 1) // _BLOCK + 1):
            generator = np.random.Generator(np.random.Philox(key=[self._seed, block]))
            rows = (2.0 * generator.random((_BLOCK, self._dim), np.float32) - 1.0) * limit
            start = block * _BLOCK - first  # of the block among the rows
            drawn_rows[max(start, 0) : start + _BLOCK] = rows[max(-start, 0) : count - start]
        return drawn_rows

    def _features(self, embeddings: Tensor) -> Tensor:
        return embeddings if self._prelu is None else self._prelu(embeddings)

    def _plain(self, features: Tensor, kernel: Tensor, bias: Sequence[Tensor]) -> Tensor:
        """Logits without a margin, [batch, columns], of rows of the class weights."""
        if self.head.margin_logits is None:
            return tf.matmul(features, kernel, transpose_b=True) + bias[0]
        return self.head.scale * tf.matmul(
            tf.nn.l2_normalize(features, axis=1),
            tf.nn.l2_normalize(kernel, axis=1),
            transpose_b=True,
        )

    def logits(self, embeddings: Tensor) -> Tensor:
        """Logits [batch, classes of this worker] of embeddings [batch, dim], for inference."""
        features = self._features(embeddings)
        biases = [[bias] for bias in self._biases] or [[]] * len(self._kernels)
        plain = [self._plain(features, *pair) for pair in zip(self._kernels, biases)]
        return tf.concat(plain, axis=1)

    def softmax(
        self,
        embeddings: Tensor,
        labels: Tensor,
        gather: Callable[..., Tensor],
        step: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(softmax loss of the global batch, its predictions int32), the same on all workers.

        Args:
          embeddings: float32 [rows, dim] of this worker.
          labels: int32 [batch], of all workers.
          gather: as `OneWorker.all_gather`.
          step: the step whose sample of the classes is taken; None: all classes.
        """
        features = gather(self.observer(self._features(embeddings)), sum_gradients=True)
        sample = None if step is None else drawn(self.ranges, self._seed, step)
        shards, self._taken = [], []
        for number, part in enumerate(self._parts):
            columns = (
                all_columns(labels, part)
                if sample is None
                else sampled_columns(labels, part, *sample)
            )
            shards.append(self._shard(number, part, features, columns))
            self._taken.append(shards[-1].inputs[1])
        self._gates: list = []
        return sharded_softmax(shards, gather, len(shards) == 1, self._gates)

    def update_in_turn(self, gradients: Sequence[tuple[Any, Any]]) -> None:
        """Updates a shard before the gradient of the next one is computed, so that the gradient of
        one shard is in memory at a time.

        Args:
          gradients: (gradient, variable) of the shards, after `apply_gradients`. No update may
            depend on the gradient of a later shard, as one with loss scaling does.
        """
        by_name = {variable.op.name: gradient for gradient, variable in gradients}
        for number, gate in enumerate(self._gates):
            for group in (self._kernels, self._biases):
                gradient = by_name.get(group[number].op.name) if group else None
                if isinstance(gradient, tf.Tensor):
                    updates = [op for op in gradient.consumers() if 'ResourceApply' in op.type]
                    # TensorFlow has no public name for it; the update is made after the gradient.
                    gate._add_control_inputs(updates)

    def squares(self) -> list[Tensor]:
        """||w||^2 / 2 of this worker's class weights, in a sample of those that `softmax` took."""
        return [tf.nn.l2_loss(kernel) for kernel in self._taken]

    def _shard(
        self, number: int, part: ClassRange, features: Tensor, columns: Columns
    ) -> ShardLogits:
        variables = [group[number] for group in (self._kernels, self._biases) if group]
        if columns.rows is None:
            weights = [variable.read_value() for variable in variables]
            classes = tf.range(part.first, part.stop)
        else:
            weights = [tf.gather(variable, columns.rows) for variable in variables]
            classes = part.first + columns.rows
        return ShardLogits(
            lambda: self._plain(features, weights[0], weights[1:]),
            functools.partial(self._training, columns),
            [features, *weights],
            columns.own,
            classes,
        )

    def _training(self, columns: Columns, logits: Tensor) -> Tensor:
        """`logits` with the head's margin at the labels, and with the offset of a sample."""
        margin_logits, margin, scale = self.head
        if margin_logits is not None:
            logits = margin_logits(logits / scale, columns.own, margin, scale)
        return logits if columns.offset is None else logits + columns.offset
