"""Class centers: the table that holds them, and the rule that moves them."""

from __future__ import annotations

from typing import Any

from gitloss.backend import Tensor, keras, tf

DISTANCES = ('euclidean', 'cosine')


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f'{name}: expected one of {", ".join(allowed)}. Received: {value!r}')
    return value


def _check_rank(name: str, tensor: Tensor, meaning: str) -> None:
    shape = tf.TensorShape(tensor.shape)
    if shape.rank != len(meaning.split(',')):
        received = None if shape.rank is None else shape.as_list()
        raise ValueError(f'{name}: expected shape {meaning}. Received: {received}')


def float_rows(name: str, rows: Tensor) -> Tensor:
    """`rows` as a tensor; ValueError unless it is float [batch, dim]."""
    rows = tf.convert_to_tensor(rows)
    if not rows.dtype.is_floating:
        raise ValueError(f'{name}: expected a float tensor. Received: dtype {rows.dtype.name}')
    _check_rank(name, rows, '[batch, dim]')
    return rows


def labels_of(embeddings: Tensor, labels: Tensor) -> Tensor:
    """`labels` as a tensor; ValueError unless it is int32 or int64 [batch], one per embedding."""
    labels = tf.convert_to_tensor(labels)
    if labels.dtype not in (tf.int32, tf.int64):
        raise ValueError(
            f'labels: expected int32 or int64 class numbers. Received: dtype {labels.dtype.name}'
        )
    _check_rank('labels', labels, '[batch]')
    if not labels.shape.is_compatible_with(embeddings.shape[:1]):
        raise ValueError(
            'labels: expected one label per embedding, embeddings have shape '
            f'{embeddings.shape.as_list()}. Received: shape {labels.shape.as_list()}'
        )
    return labels


def look_up(embeddings: Tensor, labels: Tensor, centers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(embeddings and labels as tensors, each sample's own center: the row of `centers`, [classes,
    dim], of its label, [batch, dim]).

    Raises:
      ValueError: shapes or dtypes that do not fit together.
    """
    if centers is None:
        raise ValueError(
            'centers: expected a table of centers. '
            'Received: None, the layer that owns it must be called first'
        )
    embeddings = float_rows('embeddings', embeddings)
    labels = labels_of(embeddings, labels)
    _check_rank('centers', centers, '[classes, dim]')
    shape, found = embeddings.shape.as_list(), tf.TensorShape(centers.shape).as_list()
    if shape[1] != found[1]:
        raise ValueError(
            f'centers: expected [classes, {shape[1]}] to match embeddings of shape {shape}. '
            f'Received: shape {found}'
        )
    return embeddings, labels, tf.gather(centers, labels)


def comparable(embeddings: Tensor, own_centers: Tensor, distance: str) -> tuple[Tensor, Tensor]:
    """Embeddings and own centers, [batch, dim] both, in the float type to compute in: float64 for
    float64 embeddings, else float32. No gradient flows into the centers. For the cosine distance
    both have length 1.

    Raises:
      ValueError: unknown distance, or shapes or dtypes that do not fit together.
    """
    check_choice('distance', distance, DISTANCES)
    embeddings = float_rows('embeddings', embeddings)
    own_centers = float_rows('own_centers', own_centers)
    if not embeddings.shape.is_compatible_with(own_centers.shape):
        raise ValueError(
            f'own_centers: expected the shape of the embeddings, {embeddings.shape.as_list()}. '
            f'Received: {own_centers.shape.as_list()}'
        )
    dtype = tf.float64 if embeddings.dtype == tf.float64 else tf.float32
    pair = tf.cast(embeddings, dtype), tf.stop_gradient(tf.cast(own_centers, dtype))
    if distance == 'cosine':
        return tuple(tf.nn.l2_normalize(rows, axis=1) for rows in pair)
    return pair


def _class_counts(labels: Tensor, dtype: Any) -> Tensor:
    """Of how many samples each sample's class has in the batch: [batch]. Counting by comparison
    keeps the shapes static.
    """
    return tf.reduce_sum(tf.cast(tf.equal(labels[:, None], labels[None, :]), dtype), axis=1)


def mean_drift(before: Tensor, after: Tensor, labels: Tensor) -> Tensor:
    """Mean length of the moves of the centers of the classes in a batch.

    Args:
      before, after: float [batch, dim], row i the center of sample i's class before and after the
        update.
      labels: int [batch].

    Returns:
      A scalar: every class of the batch counts once, however many samples it has.
    """
    shares = 1.0 / _class_counts(labels, before.dtype)
    return tf.reduce_sum(tf.norm(after - before, axis=1) * shares) / tf.reduce_sum(shares)


def _steps(
    embeddings: Tensor, labels: Tensor, own_centers: Tensor, alpha: float, distance: str
) -> Tensor:
    """alpha (c_{y_i} - x_i) / (1 + n_{y_i}) for every sample i, n_k being the samples of class k in
    the batch: [batch, dim].

    Summed per class this is alpha delta c_k of Wen et al., eq. 4.
    """
    embeddings, _ = comparable(embeddings, own_centers, distance)
    difference = tf.cast(own_centers, embeddings.dtype) - embeddings
    shares = 1.0 + _class_counts(labels, embeddings.dtype)
    return tf.stop_gradient(alpha * difference / shares[:, None])


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
      labels: int32 or int64 [batch]; duplicates are the usual case.
      alpha: how far centers move, in [0, 1].
      distance: "cosine" moves the centers towards the embeddings scaled to length 1; the centers
        themselves are not scaled.

    Returns:
      A new [classes, dim] tensor. `CenterTable.update` moves a table in place and touches only the
      batch's rows.

    Raises:
      ValueError: unknown distance, or shapes or dtypes that do not fit together.
    """
    embeddings, labels, own_centers = look_up(embeddings, labels, centers)
    steps = _steps(embeddings, labels, own_centers, alpha, distance)
    return tf.tensor_scatter_sub(tf.cast(centers, steps.dtype), labels[:, None], steps)


class CenterTable(keras.layers.Layer):
    """One center per class, zero at the start, and the rule that moves them.

    `build([None, dim])` makes its variables.

    Args:
      num_classes: number of centers.
      alpha: how far centers move, in [0, 1].
      distance: see `updated_centers`.

    Attributes, None before `build`:
      centers: the variable, float32 [num_classes, dim].
      updates: the variable that counts the samples that have moved each center, int32
        [num_classes]; 0: that center never moved.

    Raises:
      ValueError: an argument out of its range.
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
        """Makes the variables. input_shape: that of the embeddings, [batch, dim]."""
        shape = (self.num_classes, int(input_shape[-1]))
        with tf.name_scope(self.name + '/'):
            self.centers = self.add_weight('centers', shape, tf.float32, 'zeros', trainable=False)
            self.updates = self.add_weight('updates', shape[:1], tf.int32, 'zeros', trainable=False)
        super().build(input_shape)

    def rows(self, labels: Tensor) -> Tensor:
        """Each sample's own center, float32 [batch, dim], for labels int [batch]; no gradient."""
        return tf.stop_gradient(tf.gather(self.centers, labels))

    def update(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """An op that moves the centers in place by `updated_centers`' rule. Nothing moves unless
        the caller runs it.

        The caller orders it after the reads of its step, by `tf.control_dependencies` on the loss
        and the gradients.
        """
        embeddings, labels, own_centers = look_up(embeddings, labels, self.centers)
        steps = _steps(embeddings, labels, own_centers, self.alpha, self.distance)
        move = tf.raw_ops.ResourceScatterSub(
            resource=self.centers.handle, indices=labels, updates=tf.cast(steps, tf.float32)
        )
        count = tf.raw_ops.ResourceScatterAdd(
            resource=self.updates.handle, indices=labels, updates=tf.ones_like(labels, tf.int32)
        )
        return tf.group(move, count)
