"""Git loss, center loss and the rule that moves the centers.

With m samples x_i of class y_i and one center c_k per class (arXiv 1807.08512, L = L_S + lambda_c
L_C + lambda_g L_G):

form "pairwise", the norms of the paper, as means so that the lambdas do not depend on the batch
    size:
    center = 1/2 mean_i ||x_i - c_{y_i}||^2                                     (eq. for L_C,
    divided by m)
    git    = mean over the m (m - 1) pairs i != j of 1 / (1 + ||x_i - c_{y_j}||^2)      (eq. for
    L_G, as a mean)
form "elementwise", what the authors' code computes and what the published MNIST numbers come from:
    center = mean_{i,k} (x_ik - c_{y_i}k)^2
    git    = mean_{i,j,k} 1 / (1 + d_ijk^2), d_ijk = x_ik - c_{y_j}k and d_iik = 0 (the diagonal
    adds a constant 1/m)

distance "cosine" takes the same formulas over embeddings and centers scaled to length 1, where ||x
- c||^2 = 2 (1 - cos(x, c)): for embeddings that are compared by their angle, as in face
verification.

Same-class pairs with i != j stay in. A gradient flows into the embeddings only: centers move by
their own rule (Wen et al., ECCV 2016). Computation is in float32 whatever float type comes in
(float64 stays float64).
"""

from __future__ import annotations

from gitloss import pairs
from gitloss.backend import keras, tf
from gitloss.centers import (
    DISTANCES,
    batch_rows,
    center_steps,
    check_choice,
    mean_drift,
    unit,
    updated_centers,
)

__all__ = [
    'DISTANCES',
    'FORMS',
    'CenterLoss',
    'GitLoss',
    'center_loss',
    'git_floor',
    'git_loss',
    'mean_drift',
    'updated_centers',
]

FORMS = ('elementwise', 'pairwise')
# Up to this many dimensions summing the differences directly beats a matrix product.
_DIRECT_DIMENSIONS = 8


def center_loss(embeddings, labels, centers, form='elementwise', distance='euclidean'):
    """Mean distance of the samples to their own class center (see the module's text for both
    forms).

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
    check_choice('form', form, FORMS)
    embeddings, _, rows = batch_rows(embeddings, labels, centers, distance)
    squared = tf.square(embeddings - (unit(rows) if distance == 'cosine' else rows))
    if form == 'elementwise':
        return tf.reduce_mean(squared)
    return 0.5 * tf.reduce_mean(tf.reduce_sum(squared, axis=1))


def git_loss(embeddings, labels, centers, form='elementwise', distance='euclidean', method=None):
    """How close the samples are to the centers of the other samples' classes (see the module's text
    for both forms).

    The gradient is written by hand and computed along with the value: what lives until the backward
    pass is [batch, dim], what lives inside is O(batch^2), never batch x batch x dim.

    Args:
      embeddings: float [batch, dim]. With a batch unknown at build time the direct method goes
        sample by sample.
      labels: int32 or int64 [batch], each in [0, classes).
      centers: float [classes, dim], tensor or variable; receives no gradient.
      form: "elementwise" or "pairwise".
      distance: "euclidean" or "cosine".
      method: how "pairwise" is computed: "direct" (differences, float32 only, O(batch^2 dim) work),
        "gram" (two float64 matrix products), "unrolled" (direct, for a static batch, without the
        loop, whose shapes are open: NPUs want them static) or None: direct up to 8 dimensions, gram
        above. "elementwise" knows all but gram.

    Returns:
      A scalar, float32 (float64 for float64 embeddings), in (0, 1] for a batch of two or more. A
      batch of one has no pair: 0 in the pairwise form, 1 (its diagonal) in the elementwise form.

    Raises:
      ValueError: unknown form, distance or method, or shapes or dtypes that do not fit together.
    """
    check_choice('form', form, FORMS)
    embeddings, labels, rows = batch_rows(embeddings, labels, centers, distance)
    if distance == 'cosine':
        rows = unit(rows)
    dim = embeddings.shape.as_list()[1]
    if method is None:
        method = 'direct' if form == 'elementwise' or dim <= _DIRECT_DIMENSIONS else 'gram'
    check_choice(
        'method',
        method,
        ('direct', 'unrolled') if form == 'elementwise' else ('direct', 'gram', 'unrolled'),
    )
    batch = tf.cast(tf.shape(embeddings)[0], embeddings.dtype)
    terms = batch * batch * dim if form == 'elementwise' else tf.maximum(batch * (batch - 1.0), 1.0)

    @tf.custom_gradient
    def value_of(x):
        total, gradient = (
            pairs.gram_terms(x, labels, rows)
            if method == 'gram'
            else pairs.direct_terms(x, rows, form, method == 'unrolled')
        )
        return total / terms, lambda upstream: upstream * (-2.0 / terms) * gradient

    return value_of(embeddings)


def git_floor(labels, form='elementwise'):
    """What the git term comes to when every sample lies on its center and the other centers are
    infinitely far away.

    The share of same-class pairs, which git loss keeps in: with batches of m balanced over K
    classes about 1/K, and in the elementwise form at least the 1/m of its diagonal. A git term near
    this floor has nothing left to push.

    Args:
      labels: int [batch].
      form: "elementwise" or "pairwise".

    Returns:
      A float32 scalar in [0, 1].
    """
    check_choice('form', form, FORMS)
    same = tf.reduce_sum(tf.cast(tf.equal(labels[:, None], labels[None, :]), tf.float32))
    batch = tf.cast(tf.shape(labels)[0], tf.float32)
    if form == 'elementwise':
        return same / (batch * batch)
    return (same - batch) / tf.maximum(batch * (batch - 1.0), 1.0)


class _CentersLayer(keras.layers.Layer):
    """Owns a table of centers, or uses the one of another layer, and hands back the op that moves
    it.
    """

    def __init__(
        self, num_classes, form='elementwise', alpha=0.5, distance='euclidean', share=None, **kwargs
    ):
        super().__init__(**kwargs)
        if num_classes < 1:
            raise ValueError(f'num_classes: expected at least 1. Received: {num_classes!r}')
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f'alpha: expected a number in [0, 1]. Received: {alpha!r}')
        if share is not None and share.num_classes != num_classes:
            raise ValueError(
                'share: expected a layer with %d classes. Received: %s with %d'
                % (num_classes, share.name, share.num_classes)
            )
        self.num_classes, self.alpha = num_classes, alpha
        self.form, self.distance = (
            check_choice('form', form, FORMS),
            check_choice('distance', distance, DISTANCES),
        )
        self._share = share
        self._table = self._updates = None

    def build(self, input_shape):
        if self._share is None:
            self._table = self.add_weight(
                name='centers',
                shape=(self.num_classes, int(input_shape[0][-1])),
                initializer='zeros',
                trainable=False,
            )
            self._updates = self.add_weight(
                name='updates',
                shape=(self.num_classes,),
                initializer='zeros',
                trainable=False,
                dtype=tf.int32,
            )
        super().build(input_shape)

    @property
    def centers(self):
        """The variable, [num_classes, dim]; None until the layer has been called once."""
        return self._table if self._share is None else self._share.centers

    @property
    def updates(self):
        """The variable that counts the samples that have moved each center, int32 [num_classes]; 0:
        that center never moved.
        """
        return self._updates if self._share is None else self._share.updates

    def update(self, embeddings, labels):
        """An op that moves the centers in place by `updated_centers`' rule. Nothing moves unless
        the caller runs it.

        The caller orders it after the reads of its step, by `tf.control_dependencies` on the loss
        and the gradients.
        """
        embeddings, labels, rows = batch_rows(embeddings, labels, self.centers, self.distance)
        steps = tf.cast(center_steps(rows, embeddings, labels, self.alpha), self.centers.dtype)
        move = tf.raw_ops.ResourceScatterSub(
            resource=self.centers.handle, indices=labels, updates=steps
        )
        count = tf.raw_ops.ResourceScatterAdd(
            resource=self.updates.handle, indices=labels, updates=tf.ones_like(labels, tf.int32)
        )
        return tf.group(move, count)

    def get_config(self):
        config = super().get_config()
        config.update(
            num_classes=self.num_classes, form=self.form, alpha=self.alpha, distance=self.distance
        )
        return config


class CenterLoss(_CentersLayer):
    """`center_loss` as a layer over (embeddings, labels), with its own `centers`, zero at the
    start.
    """

    def call(self, inputs):
        embeddings, labels = inputs
        return center_loss(embeddings, labels, self.centers, form=self.form, distance=self.distance)


class GitLoss(_CentersLayer):
    """`git_loss` as a layer over (embeddings, labels); `share=` another layer's centers, as the
    total loss wants it.
    """

    def __init__(self, num_classes, method=None, **kwargs):
        super().__init__(num_classes, **kwargs)
        self.method = method

    def call(self, inputs):
        embeddings, labels = inputs
        return git_loss(
            embeddings,
            labels,
            self.centers,
            form=self.form,
            distance=self.distance,
            method=self.method,
        )
