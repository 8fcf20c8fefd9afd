"""Git loss, center loss and the rule that moves the centers.

With m samples x_i of class y_i and one center c_k per class (arXiv 1807.08512, L = L_S + lambda_c L_C + lambda_g L_G):

form "pairwise", the norms of the paper, as means so that the lambdas do not depend on the batch size:
    center = 1/2 mean_i ||x_i - c_{y_i}||^2                                     (eq. for L_C, divided by m)
    git    = mean over the m (m - 1) pairs i != j of 1 / (1 + ||x_i - c_{y_j}||^2)      (eq. for L_G, as a mean)
form "elementwise", what the authors' code computes and what the published MNIST numbers come from:
    center = mean_{i,k} (x_ik - c_{y_i}k)^2
    git    = mean_{i,j,k} 1 / (1 + d_ijk^2), d_ijk = x_ik - c_{y_j}k and d_iik = 0 (the diagonal adds a constant 1/m)

Same-class pairs with i != j stay in. A gradient flows into the embeddings only: centers move by their own rule (Wen et al., ECCV
2016). Computation is in float32 whatever float type comes in (float64 stays float64).
"""
from __future__ import annotations

from gitloss.backend import keras, tf

FORMS = ('elementwise', 'pairwise')
# Above this many floats a block of differences is processed in rows, so that it never exceeds max(batch^2, this).
_BLOCK_FLOATS = 1 << 20
# Up to this many dimensions summing the differences directly beats a matrix product.
_DIRECT_DIMENSIONS = 8


def _choice(name, value, allowed):
    if value not in allowed:
        raise ValueError('%s: expected one of %s. Received: %r' % (name, ', '.join(allowed), value))
    return value


def _batch_rows(embeddings, labels, centers):
    """Checks shapes and dtypes. Returns (embeddings, labels, the rows of `centers` that belong to the labels, no gradient)."""
    embeddings, labels = tf.convert_to_tensor(embeddings), tf.convert_to_tensor(labels)
    if not embeddings.dtype.is_floating:
        raise ValueError('embeddings: expected a float tensor. Received: dtype %s' % embeddings.dtype.name)
    if labels.dtype not in (tf.int32, tf.int64):
        raise ValueError('labels: expected int32 or int64 class numbers. Received: dtype %s' % labels.dtype.name)
    shapes = [tensor.shape.as_list() if tensor.shape.rank is not None else None for tensor in (embeddings, labels)]
    shapes.append(tf.TensorShape(centers.shape).as_list())
    for name, shape, rank, meaning in zip(('embeddings', 'labels', 'centers'), shapes, (2, 1, 2),
                                          ('[batch, dim]', '[batch]', '[classes, dim]')):
        if shape is None or len(shape) != rank:
            raise ValueError('%s: expected shape %s. Received: %s' % (name, meaning, shape))
    batch, count = shapes[0][0], shapes[1][0]
    if batch is not None and count is not None and batch != count:
        raise ValueError('labels: expected one label per embedding, embeddings have shape %s. Received: shape %s'
                         % (shapes[0], shapes[1]))
    if shapes[0][1] != shapes[2][1]:
        raise ValueError('centers: expected [classes, %s] to match embeddings of shape %s. Received: shape %s'
                         % (shapes[0][1], shapes[0], shapes[2]))
    dtype = tf.float64 if embeddings.dtype == tf.float64 else tf.float32
    rows = tf.stop_gradient(tf.cast(tf.gather(centers, labels), dtype))
    return tf.cast(embeddings, dtype), labels, rows


def center_loss(embeddings, labels, centers, form='elementwise'):
    """Mean distance of the samples to their own class center (see the module's text for both forms).

    Args:
      embeddings: float [batch, dim].
      labels: int32 or int64 [batch], each in [0, classes).
      centers: float [classes, dim], tensor or variable; receives no gradient.
      form: "elementwise" or "pairwise".

    Returns:
      A scalar >= 0, float32 (float64 for float64 embeddings).

    Raises:
      ValueError: unknown form, or shapes or dtypes that do not fit together.
    """
    _choice('form', form, FORMS)
    embeddings, _, rows = _batch_rows(embeddings, labels, centers)
    squared = tf.square(embeddings - rows)
    if form == 'elementwise':
        return tf.reduce_mean(squared)
    return 0.5 * tf.reduce_mean(tf.reduce_sum(squared, axis=1))


def _block_terms(embeddings, first_row, rows, form):
    """Sum of the git terms of a block of samples against all centers of the batch, and half its negative gradient.

    embeddings [r, dim] are the samples first_row ... first_row + r - 1 of the batch; rows [m, dim] the centers of all m samples.
    Differences are taken before they are squared: nothing cancels, whatever the distance of the data from the origin. The batch
    is the last axis, because long sums along it are both faster and more exact (10 times at 4096) than across it.
    """
    size = tf.shape(embeddings)[0]
    other = tf.not_equal(first_row + tf.range(size)[:, None], tf.range(tf.shape(rows)[0])[None, :])
    other = tf.cast(other, embeddings.dtype)                             # [r, m], 0 where i == j
    difference = embeddings[:, :, None] - tf.transpose(rows)[None, :, :]  # [r, dim, m]
    if form == 'elementwise':
        difference = difference * other[:, None, :]
        term = 1.0 / (1.0 + tf.square(difference))
        return tf.reduce_sum(term), tf.reduce_sum(difference * tf.square(term), axis=2)
    term = other / (1.0 + tf.reduce_sum(tf.square(difference), axis=1))  # [r, m]
    return tf.reduce_sum(term), tf.reduce_sum(difference * tf.square(term)[:, None, :], axis=2)


def _direct_terms(embeddings, rows, form):
    """Value and gradient sums in one pass over row blocks of at most max(batch^2, 2^20) floats."""
    batch, dim = embeddings.shape.as_list()
    block = 1  # an unknown batch goes row by row
    if batch is not None:
        limit = max(batch * batch, _BLOCK_FLOATS)
        block = max(r for r in range(1, batch + 1) if batch % r == 0 and (r == 1 or r * batch * dim <= limit))
    if block == batch:
        return _block_terms(embeddings, 0, rows, form)
    blocks = tf.reshape(embeddings, [-1, block, dim])
    first_rows = tf.range(tf.shape(blocks)[0]) * block
    sums, gradients = tf.map_fn(lambda args: _block_terms(args[0], args[1], rows, form), (blocks, first_rows),
                                dtype=(embeddings.dtype, embeddings.dtype), parallel_iterations=1, back_prop=False)
    return tf.reduce_sum(sums), tf.reshape(gradients, tf.shape(embeddings))


def _gram_terms(embeddings, rows):
    """The pairwise terms by ||x||^2 + ||c||^2 - 2 x.c: two matrix products, O(batch^2) floats.

    In float64 and around the mean center, because the expansion cancels when samples lie near a center and far from the origin:
    float32 would be off by 6e-8 (||x||^2 + ||c||^2) in the squared distance, 6 at a norm of 1e4. What is left is an
    error of some 1e-16 times the squared spread of the centers in every squared distance: 1e-5 for samples on their centers when the
    centers lie 1e5 apart, 1e-3 at 1e6. Beyond that take the direct method.
    """
    x, c = tf.cast(embeddings, tf.float64), tf.cast(rows, tf.float64)
    origin = tf.reduce_mean(c, axis=0, keepdims=True)
    x, c = x - origin, c - origin
    squared = (tf.reduce_sum(x * x, axis=1)[:, None] + tf.reduce_sum(c * c, axis=1)[None, :]
               - 2.0 * tf.matmul(x, c, transpose_b=True))
    term = 1.0 / (1.0 + tf.maximum(squared, 0.0))
    term = tf.linalg.set_diag(term, tf.zeros_like(x[:, 0]))
    weight = tf.square(term)
    gradient = x * tf.reduce_sum(weight, axis=1)[:, None] - tf.matmul(weight, c)
    return tf.cast(tf.reduce_sum(term), embeddings.dtype), tf.cast(gradient, embeddings.dtype)


def git_loss(embeddings, labels, centers, form='elementwise', method=None):
    """How close the samples are to the centers of the other samples' classes (see the module's text for both forms).

    The gradient is written by hand and computed along with the value: what lives until the backward pass is [batch, dim], what
    lives inside is O(batch^2), never batch x batch x dim.

    Args:
      embeddings: float [batch, dim]. With a batch unknown at build time the direct method goes sample by sample.
      labels: int32 or int64 [batch], each in [0, classes).
      centers: float [classes, dim], tensor or variable; receives no gradient.
      form: "elementwise" or "pairwise".
      method: how "pairwise" is computed: "direct" (differences, float32 only, O(batch^2 dim) work), "gram" (two float64 matrix
        products) or None: direct up to 8 dimensions, gram above. "elementwise" knows only the direct one.

    Returns:
      A scalar, float32 (float64 for float64 embeddings), in (0, 1] for a batch of two or more. A batch of one has no pair: 0 in
      the pairwise form, 1 (its diagonal) in the elementwise form.

    Raises:
      ValueError: unknown form or method, or shapes or dtypes that do not fit together.
    """
    _choice('form', form, FORMS)
    embeddings, labels, rows = _batch_rows(embeddings, labels, centers)
    dim = embeddings.shape.as_list()[1]
    if method is None:
        method = 'direct' if form == 'elementwise' or dim <= _DIRECT_DIMENSIONS else 'gram'
    _choice('method', method, ('direct',) if form == 'elementwise' else ('direct', 'gram'))
    batch = tf.cast(tf.shape(embeddings)[0], embeddings.dtype)
    terms = batch * batch * dim if form == 'elementwise' else tf.maximum(batch * (batch - 1.0), 1.0)

    @tf.custom_gradient
    def value_of(x):
        total, gradient = _gram_terms(x, rows) if method == 'gram' else _direct_terms(x, rows, form)
        return total / terms, lambda upstream: upstream * (-2.0 / terms) * gradient

    return value_of(embeddings)


def _center_steps(rows, embeddings, labels, alpha):
    """alpha (c_{y_i} - x_i) / (1 + n_{y_i}) for every sample i, n_k being the samples of class k in the batch: [batch, dim].

    Summed per class this is alpha delta c_k of Wen et al., eq. 4. Counting by comparison keeps the shapes static.
    """
    counts = tf.reduce_sum(tf.cast(tf.equal(labels[:, None], labels[None, :]), rows.dtype), axis=1)
    return alpha * (rows - embeddings) / (1.0 + counts)[:, None]


def updated_centers(centers, embeddings, labels, alpha=0.5):
    """The centers after one batch: c_k - alpha sum_i [y_i = k] (c_k - x_i) / (1 + n_k)  (Wen et al., ECCV 2016, eq. 4).

    Args:
      centers: float [classes, dim].
      embeddings: float [batch, dim].
      labels: int32 or int64 [batch]; duplicates are the usual case.
      alpha: how far centers move, in [0, 1].

    Returns:
      A new [classes, dim] tensor. To move a table in place, touching only the batch's rows, use a layer's `update`.
    """
    embeddings, labels, rows = _batch_rows(embeddings, labels, centers)
    steps = tf.stop_gradient(_center_steps(rows, embeddings, labels, alpha))
    return tf.tensor_scatter_sub(tf.cast(centers, rows.dtype), labels[:, None], steps)


class _CentersLayer(keras.layers.Layer):
    """Owns a table of centers, or uses the one of another layer, and hands back the op that moves it."""

    def __init__(self, num_classes, form='elementwise', alpha=0.5, share=None, **kwargs):
        super(_CentersLayer, self).__init__(**kwargs)
        if num_classes < 1:
            raise ValueError('num_classes: expected at least 1. Received: %r' % (num_classes,))
        if not 0.0 <= alpha <= 1.0:
            raise ValueError('alpha: expected a number in [0, 1]. Received: %r' % (alpha,))
        self.num_classes, self.alpha = num_classes, alpha
        self.form = _choice('form', form, FORMS)
        self._share = share
        self._table = None

    def build(self, input_shape):
        if self._share is None:
            self._table = self.add_weight(name='centers', shape=(self.num_classes, int(input_shape[0][-1])),
                                          initializer='zeros', trainable=False)
        super(_CentersLayer, self).build(input_shape)

    @property
    def centers(self):
        """The variable, [num_classes, dim]; None until the layer has been called once."""
        return self._table if self._share is None else self._share.centers

    def update(self, embeddings, labels):
        """An op that moves the centers in place by `updated_centers`' rule. Nothing moves unless the caller runs it.

        The caller orders it after the reads of its step, by `tf.control_dependencies` on the loss and the gradients.
        """
        embeddings, labels, rows = _batch_rows(embeddings, labels, self.centers)
        return tf.raw_ops.ResourceScatterSub(resource=self.centers.handle, indices=labels,
                                             updates=_center_steps(rows, embeddings, labels, self.alpha))

    def get_config(self):
        config = super(_CentersLayer, self).get_config()
        config.update(num_classes=self.num_classes, form=self.form, alpha=self.alpha)
        return config


class CenterLoss(_CentersLayer):
    """`center_loss` as a layer over (embeddings, labels), with its own `centers`, zero at the start."""

    def call(self, inputs):
        embeddings, labels = inputs
        return center_loss(embeddings, labels, self.centers, form=self.form)


class GitLoss(_CentersLayer):
    """`git_loss` as a layer over (embeddings, labels); `share=` another layer's centers, as the total loss wants it."""

    def call(self, inputs):
        embeddings, labels = inputs
        return git_loss(embeddings, labels, self.centers, form=self.form)
