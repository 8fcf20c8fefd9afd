"""Class centers: the table of centers, and its update rule."""

from __future__ import annotations

from typing import Any

from gitloss.backend import Tensor, keras, tf
from gitloss.errors import check_choice

DISTANCES = ('euclidean', 'cosine')

_KINDS = {
    'float': (tf.float16, tf.bfloat16, tf.float32, tf.float64),
    'int32 or int64': (tf.int32, tf.int64),
}


def _check(
    name: str, tensor: Tensor, kind: str, sizes: Any, meaning: str, embeddings: Tensor = None
) -> None:
    """Raises ValueError unless `tensor` is of a `kind` and of the shape `sizes`, where only the
    first size may be unknown. `embeddings`: what the sizes must match.
    """
    dtype, shape = tf.as_dtype(tensor.dtype), tf.TensorShape(tensor.shape)
    fits = shape.rank == len(sizes) and shape.is_compatible_with(sizes)
    if dtype not in _KINDS[kind] or not fits or not shape[1:].is_fully_defined():
        matching = '' if embeddings is None else f' for embeddings of shape {embeddings.shape}'
        raise ValueError(
            f'{name}: expected {kind} {meaning}{matching}. Received: {dtype.name} of shape {shape}'
        )


def labels_of(embeddings: Tensor, labels: Tensor) -> Tensor:
    """`labels` as a tensor; ValueError unless it is int32 or int64 [batch], one per embedding."""
    labels = tf.convert_to_tensor(labels)
    _check('labels', labels, 'int32 or int64', embeddings.shape[:1], '[batch]', embeddings)
    return labels


def look_up(embeddings: Tensor, labels: Tensor, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(embeddings, labels, own centers) as tensors: own centers [batch, dim] are the rows of
    `centers`, [classes, dim], at the labels.

    Raises:
      ValueError: shapes or dtypes do not match.
    """
    if centers is None:
        raise ValueError(
            'centers: expected a table of centers. '
            'Received: None; call the layer that owns the table first'
        )
    embeddings = tf.convert_to_tensor(embeddings)
    _check('embeddings', embeddings, 'float', [None, None], '[batch, dim]')
    labels = labels_of(embeddings, labels)
    _check('centers', centers, 'float', [None, embeddings.shape[1]], '[classes, dim]', embeddings)
    return embeddings, labels, tf.gather(centers, labels)


def comparable(
    embeddings: Tensor, own_centers: Tensor, distance: str, is_part: bool = False
) -> tuple[Tensor, Tensor]:
    """Embeddings and own centers, both [batch, dim], in the dtype of the computation.

    With `is_part` the embeddings are some of the batch's, and the own centers those of all.

    It is float64 for float64 embeddings, else float32. No gradient flows into the centers. For the
    cosine distance both are scaled to length 1.

    Raises:
      ValueError: unknown distance, or shapes or dtypes do not match.
    """
    check_choice('distance', distance, DISTANCES)
    embeddings, own_centers = map(tf.convert_to_tensor, (embeddings, own_centers))
    _check('embeddings', embeddings, 'float', [None, None], '[batch, dim]')
    sizes = [None, embeddings.shape[1]] if is_part else embeddings.shape
    _check('own_centers', own_centers, 'float', sizes, '[batch, dim]', embeddings)
    dtype = tf.float64 if embeddings.dtype == tf.float64 else tf.float32
    pair = tf.cast(embeddings, dtype), tf.stop_gradient(tf.cast(own_centers, dtype))
    if distance == 'cosine':
        return tuple(tf.nn.l2_normalize(rows, axis=1) for rows in pair)
    return pair


def same_class(labels: Tensor, dtype: Any) -> Tensor:
    """[batch, batch]: 1 where two samples have the same label, else 0. Its shape is static."""
    return tf.cast(tf.equal(labels[:, None], labels[None, :]), dtype)


def _class_counts(labels: Tensor, dtype: Any) -> Tensor:
    """The number of samples in the batch with the label of each sample: [batch]."""
    return tf.reduce_sum(same_class(labels, dtype), axis=1)


def mean_drift(before: Tensor, after: Tensor, labels: Tensor) -> Tensor:
    """Mean distance that the centers of the classes in a batch move.

    Args:
      before, after: float [batch, dim]; row i is the center of sample i's class before and after
        the update.
      labels: int [batch].

    Returns:
      A scalar; each class of the batch counts once, whatever its number of samples.
    """
    weights = 1.0 / _class_counts(labels, before.dtype)
    return tf.reduce_sum(tf.norm(after - before, axis=1) * weights) / tf.reduce_sum(weights)


def center_steps(
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    alpha: float = 0.5,
    distance: str = 'euclidean',
) -> tuple[Tensor, Tensor]:
    """What a batch subtracts from its rows of a table of centers; arguments as for
    `updated_centers`.

    Returns:
      (labels [batch], alpha (c_{y_i} - x_i) / (1 + n_{y_i}) for every sample i [batch, dim]). n_k
      is the number of samples of class k in the batch. Summed per class the steps are alpha delta
      c_k of Wen et al., eq. 4.
    """
    embeddings, labels, own_centers = look_up(embeddings, labels, centers)
    return labels, steps_of(embeddings, labels, own_centers, alpha, distance)


def steps_of(
    embeddings: Tensor, labels: Tensor, own_centers: Tensor, alpha: float, distance: str
) -> Tensor:
    """The steps of `center_steps`, given the own center of each sample, [batch, dim]."""
    embeddings, _ = comparable(embeddings, own_centers, distance)
    difference = tf.cast(own_centers, embeddings.dtype) - embeddings
    counts = 1.0 + _class_counts(labels, embeddings.dtype)
    return tf.stop_gradient(alpha * difference / counts[:, None])


def updated_centers(
    centers: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    alpha: float = 0.5,
    distance: str = 'euclidean',
) -> Tensor:
    """The centers after one batch: c_k - alpha sum_i [y_i = k] (c_k - x_i) / (1 + n_k)  (Wen et
    al., ECCV 2016, eq. 4).

    Args:
      centers: float [classes, dim].
      embeddings: float [batch, dim].
      labels: int32 or int64 [batch]; duplicates are allowed.
      alpha: step size, in [0, 1].
      distance: "cosine" moves the centers towards the embeddings scaled to length 1; the centers
        themselves are not scaled.

    Returns:
      A new [classes, dim] tensor. `CenterTable.update` updates a table in place and touches only
      the rows of the batch.

    Raises:
      ValueError: unknown distance, or shapes or dtypes do not match.
    """
    labels, steps = center_steps(embeddings, labels, centers, alpha, distance)
    return tf.tensor_scatter_sub(tf.cast(centers, steps.dtype), labels[:, None], steps)


class CenterTable(keras.layers.Layer):
    """One center per class, initially zero, and their update rule.

    `build([None, dim])` creates its variables.

    Args:
      num_classes: number of centers.
      alpha: step size, in [0, 1].
      distance: see `updated_centers`.

    Attributes, None before `build`:
      centers: the variable, float32 [num_classes, dim].
      updates: the variable with the number of samples that have moved each center, int32
        [num_classes].

    Raises:
      ValueError: an argument is out of range.
    """

    centers: Tensor = None
    updates: Tensor = None

    def __init__(
        self, num_classes: int, alpha: float = 0.5, distance: str = 'euclidean', **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if num_classes < 1:
            raise ValueError(f'num_classes: expected at least 1. Received: {num_classes!r}')
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f'alpha: expected a number in [0, 1]. Received: {alpha!r}')
        self.num_classes, self.alpha = num_classes, alpha
        self.distance = check_choice('distance', distance, DISTANCES)

    def build(self, input_shape: Any) -> None:
        """Creates the variables. input_shape: of the embeddings, [batch, dim]."""
        shape = (self.num_classes, int(input_shape[-1]))
        with tf.name_scope(self.name + '/'):
            self.centers = self.add_weight('centers', shape, tf.float32, 'zeros', trainable=False)
            self.updates = self.add_weight('updates', shape[:1], tf.int32, 'zeros', trainable=False)
        super().build(input_shape)

    def rows(self, labels: Tensor) -> Tensor:
        """Each sample's own center, float32 [batch, dim], for labels int [batch]; no gradient."""
        return tf.stop_gradient(tf.gather(self.centers, labels))

    def rows_after(self, before: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The rows of a batch, which were `before`, after its `update`, which the caller orders."""
        return self.rows(labels)

    def set_rows(self, labels: Tensor, rows: Tensor) -> Tensor:
        """An op that gives the classes `labels`, int [n], the centers `rows`, float32 [n, dim]; the
        rows of a class are equal.
        """
        return tf.raw_ops.ResourceScatterUpdate(
            resource=self.centers.handle, indices=labels, updates=rows
        )

    def moved(self) -> Tensor:
        """The number of classes whose center a sample has moved, a scalar."""
        return tf.reduce_sum(tf.cast(self.updates > 0, tf.int32))

    def update(
        self, embeddings: Tensor, labels: Tensor, own_centers: Tensor | None = None
    ) -> Tensor:
        """An op that moves the centers in place by the rule of `updated_centers`.

        The caller runs it, ordered after the reads of the step by `tf.control_dependencies` on the
        loss and the gradients. `own_centers`: `rows(labels)`, if the caller has them.
        """
        if own_centers is None:
            own_centers = look_up(embeddings, labels, self.centers)[2]
        steps = steps_of(embeddings, labels, own_centers, self.alpha, self.distance)
        return self.subtract(labels, tf.cast(steps, tf.float32), tf.ones_like(labels, tf.int32))

    def subtract(self, rows: Tensor, steps: Tensor, counts: Tensor) -> Tensor:
        """An op that subtracts steps [batch, dim] from rows of the centers, and counts."""
        return tf.group(
            tf.raw_ops.ResourceScatterSub(
                resource=self.centers.handle, indices=rows, updates=steps
            ),
            tf.raw_ops.ResourceScatterAdd(
                resource=self.updates.handle, indices=rows, updates=counts
            ),
        )
