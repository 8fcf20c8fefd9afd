"""Git loss, center loss and the rule that moves the centers.

With m samples x_i of class y_i and one center c_k per class (arXiv 1807.08512, L = L_S + lambda_c L_C + lambda_g L_G):

form "pairwise", the norms of the paper, as means so that the lambdas do not depend on the batch size:
    center = 1/2 mean_i ||x_i - c_{y_i}||^2                                     (eq. for L_C, divided by m)
    git    = mean over the m (m - 1) pairs i != j of 1 / (1 + ||x_i - c_{y_j}||^2)      (eq. for L_G, as a mean)
form "elementwise", what the authors' code computes and what the published MNIST numbers come from:
    center = mean_{i,k} (x_ik - c_{y_i}k)^2
    git    = mean_{i,j,k} 1 / (1 + d_ijk^2), d_ijk = x_ik - c_{y_j}k and d_iik = 0 (the diagonal adds a constant 1/m)

distance "cosine" takes the same formulas over embeddings and centers scaled to length 1, where ||x - c||^2 = 2 (1 - cos(x, c)): for
embeddings that are compared by their angle, as in face verification.

Same-class pairs with i != j stay in. A gradient flows into the embeddings only: centers move by their own rule (Wen et al., ECCV
2016). Computation is in float32 whatever float type comes in (float64 stays float64).
"""
from __future__ import annotations

from gitloss.backend import keras, tf

FORMS = ('elementwise', 'pairwise')
DISTANCES = ('euclidean', 'cosine')
# Floats in a block of differences, which is processed at once: what the caches hold. Measured fastest of 2^14 to 2^24.
_BLOCK_FLOATS = 1 << 20
# Up to this many dimensions summing the differences directly beats a matrix product.
_DIRECT_DIMENSIONS = 8


def _choice(name, value, allowed):
    if value not in allowed:
        raise ValueError('%s: expected one of %s. Received: %r' % (name, ', '.join(allowed), value))
    return value


def _unit(rows):
    return tf.nn.l2_normalize(rows, axis=1)


def _batch_rows(embeddings, labels, centers, distance):
    """Checks shapes and dtypes. Returns (embeddings, labels, the rows of `centers` that belong to the labels, no gradient).

    For the cosine distance the embeddings come back with length 1, the rows as they are stored.
    """
    _choice('distance', distance, DISTANCES)
    if centers is None:
        raise ValueError('centers: expected a table of centers. Received: None, the layer that owns it must be called first')
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
    embeddings = tf.cast(embeddings, dtype)
    return _unit(embeddings) if distance == 'cosine' else embeddings, labels, rows


def center_loss(embeddings, labels, centers, form='elementwise', distance='euclidean'):
    """Mean distance of the samples to their own class center (see the module's text for both forms).

    Args:
      embeddings: float [batch, dim].
      labels: int32 or int64 [batch], each in [0, classes).
      centers: float [classes, dim], tensor or variable; receives no gradient.
      form: "elementwise" or "pairwise".
      distance: "euclidean" or "cosine".

    Returns:
      A scalar >= 0, float32 (float64 for float64 embeddings).

    Raises:
      ValueError: unknown form or distance, or shapes or dtypes that do not fit together.
    """
    _choice('form', form, FORMS)
    embeddings, _, rows = _batch_rows(embeddings, labels, centers, distance)
    squared = tf.square(embeddings - (_unit(rows) if distance == 'cosine' else rows))
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


def _direct_terms(embeddings, rows, form, unrolled=False):
    """Value and gradient sums in one pass over row blocks of 2^20 floats, 2^24 where they are unrolled, or of one row if that is more."""
    batch, dim = embeddings.shape.as_list()
    block = 1  # an unknown batch goes row by row
    if batch is not None:
        limit = 16 * _BLOCK_FLOATS if unrolled else _BLOCK_FLOATS
        block = max(r for r in range(1, batch + 1) if batch % r == 0 and (r == 1 or r * batch * dim <= limit))
    if block == batch:
        return _block_terms(embeddings, 0, rows, form)
    if unrolled:
        sums, gradients = zip(*(_block_terms(embeddings[first:first + block], first, rows, form) for first in range(0, batch, block)))
        return tf.add_n(sums), tf.concat(gradients, axis=0)
    blocks = tf.reshape(embeddings, [-1, block, dim])
    first_rows = tf.range(tf.shape(blocks)[0]) * block
    sums, gradients = tf.map_fn(lambda args: _block_terms(args[0], args[1], rows, form), (blocks, first_rows),
                                dtype=(embeddings.dtype, embeddings.dtype), parallel_iterations=1, back_prop=False)
    return tf.reduce_sum(sums), tf.reshape(gradients, tf.shape(embeddings))


def _gram_terms(embeddings, labels, rows):
    """The pairwise terms by ||x||^2 + ||c||^2 - 2 x.c: two matrix products, O(batch^2) floats.

    In float64 and around the mean center, because the expansion cancels when samples lie near a center and far from the origin:
    float32 would be off by 6e-8 (||x||^2 + ||c||^2) in the squared distance, 6 at a norm of 1e4. Same-class pairs, which share
    their center with the sample, take the difference x_i - c_{y_i} itself, however far apart the classes are. What is left is an
    error of some 1e-16 times the squared spread of the centers where a sample lies near a center of *another* class: 1e-5 of the
    loss if the others are 1e5 away, below 1e-3 at 1e6. Beyond that take the direct method.
    """
    x, c, own = (tf.cast(tensor, tf.float64) for tensor in (embeddings, rows, embeddings - rows))
    origin = tf.reduce_mean(c, axis=0, keepdims=True)
    x, c = x - origin, c - origin
    same = tf.equal(labels[:, None], labels[None, :])                    # [m, m], the diagonal included
    partners = tf.cast(tf.reduce_sum(tf.cast(same, tf.int32), axis=1) - 1, tf.float64)
    own_term = 1.0 / (1.0 + tf.reduce_sum(own * own, axis=1))            # [m], of each pair of a sample with one of its class
    squared = (tf.reduce_sum(x * x, axis=1)[:, None] + tf.reduce_sum(c * c, axis=1)[None, :]
               - 2.0 * tf.matmul(x, c, transpose_b=True))
    nothing = tf.zeros([], tf.float64)
    term = tf.where_v2(same, nothing, 1.0 / (1.0 + tf.maximum(squared, nothing)))
    weight = tf.square(term)
    gradient = (own * (partners * tf.square(own_term))[:, None]
                + x * tf.reduce_sum(weight, axis=1)[:, None] - tf.matmul(weight, c))
    total = tf.reduce_sum(term) + tf.reduce_sum(partners * own_term)
    return tf.cast(total, embeddings.dtype), tf.cast(gradient, embeddings.dtype)


def git_loss(embeddings, labels, centers, form='elementwise', distance='euclidean', method=None):
    """How close the samples are to the centers of the other samples' classes (see the module's text for both forms).

    The gradient is written by hand and computed along with the value: what lives until the backward pass is [batch, dim], what
    lives inside is O(batch^2), never batch x batch x dim.

    Args:
      embeddings: float [batch, dim]. With a batch unknown at build time the direct method goes sample by sample.
      labels: int32 or int64 [batch], each in [0, classes).
      centers: float [classes, dim], tensor or variable; receives no gradient.
      form: "elementwise" or "pairwise".
      distance: "euclidean" or "cosine".
      method: how "pairwise" is computed: "direct" (differences, float32 only, O(batch^2 dim) work), "gram" (two float64 matrix
        products), "unrolled" (direct, for a static batch, without the loop, whose shapes are open: NPUs want them static) or None: direct
        up to 8 dimensions, gram above. "elementwise" knows all but gram.

    Returns:
      A scalar, float32 (float64 for float64 embeddings), in (0, 1] for a batch of two or more. A batch of one has no pair: 0 in
      the pairwise form, 1 (its diagonal) in the elementwise form.

    Raises:
      ValueError: unknown form, distance or method, or shapes or dtypes that do not fit together.
    """
    _choice('form', form, FORMS)
    embeddings, labels, rows = _batch_rows(embeddings, labels, centers, distance)
    if distance == 'cosine':
        rows = _unit(rows)
    dim = embeddings.shape.as_list()[1]
    if method is None:
        method = 'direct' if form == 'elementwise' or dim <= _DIRECT_DIMENSIONS else 'gram'
    _choice('method', method, ('direct', 'unrolled') if form == 'elementwise' else ('direct', 'gram', 'unrolled'))
    batch = tf.cast(tf.shape(embeddings)[0], embeddings.dtype)
    terms = batch * batch * dim if form == 'elementwise' else tf.maximum(batch * (batch - 1.0), 1.0)

    @tf.custom_gradient
    def value_of(x):
        total, gradient = _gram_terms(x, labels, rows) if method == 'gram' else _direct_terms(x, rows, form, method == 'unrolled')
        return total / terms, lambda upstream: upstream * (-2.0 / terms) * gradient

    return value_of(embeddings)


def git_floor(labels, form='elementwise'):
    """What the git term comes to when every sample lies on its center and the other centers are infinitely far away.

    The share of same-class pairs, which git loss keeps in: with batches of m balanced over K classes about 1/K, and in the
    elementwise form at least the 1/m of its diagonal. A git term near this floor has nothing left to push.

    Args:
      labels: int [batch].
      form: "elementwise" or "pairwise".

    Returns:
      A float32 scalar in [0, 1].
    """
    _choice('form', form, FORMS)
    same = tf.reduce_sum(tf.cast(tf.equal(labels[:, None], labels[None, :]), tf.float32))
    batch = tf.cast(tf.shape(labels)[0], tf.float32)
    if form == 'elementwise':
        return same / (batch * batch)
    return (same - batch) / tf.maximum(batch * (batch - 1.0), 1.0)


def mean_drift(before, after, labels):
    """Mean length of the moves of the centers of the classes in a batch.

    Args:
      before, after: float [batch, dim], row i the center of sample i's class before and after the update.
      labels: int [batch].

    Returns:
      A scalar: every class of the batch counts once, however many samples it has.
    """
    shares = 1.0 / tf.reduce_sum(tf.cast(tf.equal(labels[:, None], labels[None, :]), before.dtype), axis=1)
    return tf.reduce_sum(tf.norm(after - before, axis=1) * shares) / tf.reduce_sum(shares)


def _center_steps(rows, embeddings, labels, alpha):
    """alpha (c_{y_i} - x_i) / (1 + n_{y_i}) for every sample i, n_k being the samples of class k in the batch: [batch, dim].

    Summed per class this is alpha delta c_k of Wen et al., eq. 4. Counting by comparison keeps the shapes static.
    """
    counts = tf.reduce_sum(tf.cast(tf.equal(labels[:, None], labels[None, :]), rows.dtype), axis=1)
    return alpha * (rows - embeddings) / (1.0 + counts)[:, None]


def updated_centers(centers, embeddings, labels, alpha=0.5, distance='euclidean'):
    """The centers after one batch: c_k - alpha sum_i [y_i = k] (c_k - x_i) / (1 + n_k)  (Wen et al., ECCV 2016, eq. 4).

    Args:
      centers: float [classes, dim].
      embeddings: float [batch, dim].
      labels: int32 or int64 [batch]; duplicates are the usual case.
      alpha: how far centers move, in [0, 1].
      distance: "cosine" moves the centers towards the embeddings scaled to length 1; the centers themselves are not scaled.

    Returns:
      A new [classes, dim] tensor. To move a table in place, touching only the batch's rows, use a layer's `update`.
    """
    embeddings, labels, rows = _batch_rows(embeddings, labels, centers, distance)
    steps = tf.stop_gradient(_center_steps(rows, embeddings, labels, alpha))
    return tf.tensor_scatter_sub(tf.cast(centers, rows.dtype), labels[:, None], steps)


class _CentersLayer(keras.layers.Layer):
    """Owns a table of centers, or uses the one of another layer, and hands back the op that moves it."""

    def __init__(self, num_classes, form='elementwise', alpha=0.5, distance='euclidean', share=None, **kwargs):
        super().__init__(**kwargs)
        if num_classes < 1:
            raise ValueError('num_classes: expected at least 1. Received: %r' % (num_classes,))
        if not 0.0 <= alpha <= 1.0:
            raise ValueError('alpha: expected a number in [0, 1]. Received: %r' % (alpha,))
        if share is not None and share.num_classes != num_classes:
            raise ValueError('share: expected a layer with %d classes. Received: %s with %d'
                             % (num_classes, share.name, share.num_classes))
        self.num_classes, self.alpha = num_classes, alpha
        self.form, self.distance = _choice('form', form, FORMS), _choice('distance', distance, DISTANCES)
        self._share = share
        self._table = self._updates = None

    def build(self, input_shape):
        if self._share is None:
            self._table = self.add_weight(name='centers', shape=(self.num_classes, int(input_shape[0][-1])),
                                          initializer='zeros', trainable=False)
            self._updates = self.add_weight(name='updates', shape=(self.num_classes,), initializer='zeros', trainable=False,
                                            dtype=tf.int32)
        super().build(input_shape)

    @property
    def centers(self):
        """The variable, [num_classes, dim]; None until the layer has been called once."""
        return self._table if self._share is None else self._share.centers

    @property
    def updates(self):
        """The variable that counts the samples that have moved each center, int32 [num_classes]; 0: that center never moved."""
        return self._updates if self._share is None else self._share.updates

    def update(self, embeddings, labels):
        """An op that moves the centers in place by `updated_centers`' rule. Nothing moves unless the caller runs it.

        The caller orders it after the reads of its step, by `tf.control_dependencies` on the loss and the gradients.
        """
        embeddings, labels, rows = _batch_rows(embeddings, labels, self.centers, self.distance)
        steps = tf.cast(_center_steps(rows, embeddings, labels, self.alpha), self.centers.dtype)
        move = tf.raw_ops.ResourceScatterSub(resource=self.centers.handle, indices=labels, updates=steps)
        count = tf.raw_ops.ResourceScatterAdd(resource=self.updates.handle, indices=labels, updates=tf.ones_like(labels, tf.int32))
        return tf.group(move, count)

    def get_config(self):
        config = super().get_config()
        config.update(num_classes=self.num_classes, form=self.form, alpha=self.alpha, distance=self.distance)
        return config


class CenterLoss(_CentersLayer):
    """`center_loss` as a layer over (embeddings, labels), with its own `centers`, zero at the start."""

    def call(self, inputs):
        embeddings, labels = inputs
        return center_loss(embeddings, labels, self.centers, form=self.form, distance=self.distance)


class GitLoss(_CentersLayer):
    """`git_loss` as a layer over (embeddings, labels); `share=` another layer's centers, as the total loss wants it."""

    def __init__(self, num_classes, method=None, **kwargs):
        super().__init__(num_classes, **kwargs)
        self.method = method

    def call(self, inputs):
        embeddings, labels = inputs
        return git_loss(embeddings, labels, self.centers, form=self.form, distance=self.distance, method=self.method)

