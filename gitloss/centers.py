"""Centers: which ones a batch reads, and the rule that moves them."""

from __future__ import annotations

from gitloss.backend import tf

DISTANCES = ('euclidean', 'cosine')


def check_choice(name, value, allowed):
    if value not in allowed:
        raise ValueError(
            '{}: expected one of {}. Received: {!r}'.format(name, ', '.join(allowed), value)
        )
    return value


def unit(rows):
    return tf.nn.l2_normalize(rows, axis=1)


def batch_rows(embeddings, labels, centers, distance):
    """Checks shapes and dtypes. Returns (embeddings, labels, the row of `centers` of each label,
    [batch, dim], no gradient).

    For the cosine distance the embeddings come back with length 1, the rows as they are stored.
    """
    check_choice('distance', distance, DISTANCES)
    if centers is None:
        raise ValueError(
            'centers: expected a table of centers. Received: None, the layer that owns it must be called first'
        )
    embeddings, labels = tf.convert_to_tensor(embeddings), tf.convert_to_tensor(labels)
    if not embeddings.dtype.is_floating:
        raise ValueError(
            f'embeddings: expected a float tensor. Received: dtype {embeddings.dtype.name}'
        )
    if labels.dtype not in (tf.int32, tf.int64):
        raise ValueError(
            f'labels: expected int32 or int64 class numbers. Received: dtype {labels.dtype.name}'
        )
    shapes = [
        tensor.shape.as_list() if tensor.shape.rank is not None else None
        for tensor in (embeddings, labels)
    ]
    shapes.append(tf.TensorShape(centers.shape).as_list())
    for name, shape, rank, meaning in zip(
        ('embeddings', 'labels', 'centers'),
        shapes,
        (2, 1, 2),
        ('[batch, dim]', '[batch]', '[classes, dim]'),
    ):
        if shape is None or len(shape) != rank:
            raise ValueError(f'{name}: expected shape {meaning}. Received: {shape}')
    (batch, dim), (count,), (_, width) = shapes
    if None not in (batch, count) and batch != count:
        raise ValueError(
            'labels: expected one label per embedding, embeddings have shape {}. Received: shape {}'.format(
                *tuple(shapes[:2])
            )
        )
    if dim != width:
        raise ValueError(
            f'centers: expected [classes, {dim}] to match embeddings of shape {shapes[0]}. Received: shape {shapes[2]}'
        )
    dtype = tf.float64 if embeddings.dtype == tf.float64 else tf.float32
    rows = tf.stop_gradient(tf.cast(tf.gather(centers, labels), dtype))
    embeddings = tf.cast(embeddings, dtype)
    return unit(embeddings) if distance == 'cosine' else embeddings, labels, rows


def _class_counts(labels, dtype):
    """How many samples of the batch are of each one's class: [batch]. Counting by comparison keeps
    the shapes static.
    """
    return tf.reduce_sum(tf.cast(tf.equal(labels[:, None], labels[None, :]), dtype), axis=1)


def mean_drift(before, after, labels):
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


def center_steps(rows, embeddings, labels, alpha):
    """alpha (c_{y_i} - x_i) / (1 + n_{y_i}) for every sample i, n_k being the samples of class k in
    the batch: [batch, dim].

    Summed per class this is alpha delta c_k of Wen et al., eq. 4.
    """
    return alpha * (rows - embeddings) / (1.0 + _class_counts(labels, rows.dtype))[:, None]


def updated_centers(centers, embeddings, labels, alpha=0.5, distance='euclidean'):
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
      A new [classes, dim] tensor. To move a table in place, touching only the batch's rows, use a
      layer's `update`.
    """
    embeddings, labels, rows = batch_rows(embeddings, labels, centers, distance)
    steps = tf.stop_gradient(center_steps(rows, embeddings, labels, alpha))
    return tf.tensor_scatter_sub(tf.cast(centers, rows.dtype), labels[:, None], steps)
