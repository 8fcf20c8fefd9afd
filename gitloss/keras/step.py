"""The center and git terms of a batch, and the move of the centers, in the steps of a Keras model.

A step of `fit` reads the centers as they were before it. They move once, after the weights, and
only if the optimizer has applied the gradients. With several replicas the terms are those of the
whole batch: embeddings and labels are gathered, each replica computes the same terms, and each has
1 / replicas of them in its loss, because the gradients are summed over the replicas.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

from gitloss import losses
from gitloss.backend import Tensor, tf
from gitloss.centers import center_steps
from gitloss.errors import check, check_choice


def check_strategy(names: Sequence[str]) -> None:
    """Raises ValueError if there is a tf.distribute strategy whose class is none of `names`."""
    if tf.distribute.has_strategy():
        name = type(tf.distribute.get_strategy()).__name__
        check(
            name.startswith(tuple(names)),
            'GitLossModel',
            f'no strategy, or {", ".join(names)}',
            name,
        )


def replicas() -> int:
    """The number of replicas that compute this step together."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def integer_labels(labels: Any) -> Tensor:
    """Labels int [batch] or [batch, 1] as int64 [batch].

    Raises:
      ValueError: there are none, or they are of another kind, as one-hot labels are.
    """
    expected = 'integer labels [batch] or [batch, 1], as of SparseCategoricalCrossentropy'
    check(labels is not None, 'y', expected, None)
    check(not isinstance(labels, (dict, list, tuple)), 'y', expected, type(labels).__name__)
    labels = tf.convert_to_tensor(labels)
    rank, last = labels.shape.rank, labels.shape[-1:].as_list()
    fits = labels.dtype.is_integer and (rank == 1 or (rank == 2 and last == [1]))
    check(fits, 'y', expected, f'{labels.dtype.name} of shape {labels.shape}')
    return tf.reshape(tf.cast(labels, tf.int64), [-1])


def _gathered(rows: Tensor) -> Tensor:
    """The rows of all replicas; their gradients are summed over the replicas."""
    if replicas() == 1:
        return rows
    whole = tf.distribute.get_replica_context().all_gather(rows, axis=0)
    return tf.ensure_shape(whole, [None, *rows.shape[1:]])


class Batch(NamedTuple):
    """The terms of a batch and what moves its centers: embeddings and labels of all replicas."""

    embeddings: Tensor
    labels: Tensor
    center_loss: Tensor
    git_loss: Tensor
    git_floor: Tensor


class Terms(NamedTuple):
    """The settings of the center and git terms; see `GitLossModel`."""

    lambda_c: float
    lambda_g: float
    form: str
    alpha: float
    distance: str

    def checked(self) -> Terms:
        """Raises ValueError for a setting that is out of range."""
        for name in ('lambda_c', 'lambda_g'):
            check(getattr(self, name) >= 0, name, 'a number >= 0', getattr(self, name))
        check(0 <= self.alpha <= 1, 'alpha', 'a number in [0, 1]', self.alpha)
        check_choice('form', self.form, losses.FORMS)
        check_choice('distance', self.distance, losses.DISTANCES)
        return self

    def of(self, embeddings: Tensor, labels: Any, centers: Tensor) -> Batch:
        """The terms of a batch, with the centers as they are now.

        Args:
          embeddings: float [batch of this replica, dim].
          labels: as for `integer_labels`.
          centers: the variable [classes, dim].
        """
        if embeddings.dtype != tf.float64:  # sums over replicas and the terms are in float32
            embeddings = tf.cast(embeddings, tf.float32)
        embeddings, labels = _gathered(embeddings), _gathered(integer_labels(labels))
        own_centers = tf.gather(centers, labels)
        git = losses.git_term(embeddings, labels, own_centers, self.form, self.distance)
        return Batch(
            embeddings,
            labels,
            losses.center_term(embeddings, own_centers, self.form, self.distance),
            git,
            losses.git_floor(labels, self.form),
        )

    def weighted(self, batch: Batch) -> Tensor:
        """lambda_c L_C + lambda_g L_G."""
        return self.lambda_c * batch.center_loss + self.lambda_g * batch.git_loss

    def move(self, batch: Batch, centers: Any, updates: Any, is_done: Any = True) -> None:
        """Moves the centers of the batch's classes, and counts, if `is_done`, a bool tensor.

        Args:
          centers, updates: the variables of `gitloss.centers.CenterTable`.
        """
        labels, steps = center_steps(
            batch.embeddings, batch.labels, centers, self.alpha, self.distance
        )
        # No tf.cond: variables of several replicas are not written inside one.
        steps = tf.where(is_done, tf.cast(steps, centers.dtype), tf.zeros_like(steps))
        counts = tf.cast(is_done, tf.int32) * tf.ones_like(labels, tf.int32)
        centers.scatter_sub(tf.IndexedSlices(steps, labels))
        updates.scatter_add(tf.IndexedSlices(counts, labels))
