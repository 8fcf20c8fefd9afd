"""The git term over all pairs of a batch: its sum and gradient, and the floor of its mean.

With embeddings x [m, dim] and the center c_j = rows[j] of each sample, `git_sums`, `direct_terms`
and `gram_terms` return
    total     sum over pairs of 1 / (1 + d^2), d as `gitloss.losses` defines it for the form
    gradient  [m, dim], sum over j of (x_i - c_j) / (1 + d^2)^2: the gradient of the total is -2
              times it
"""

from __future__ import annotations

from gitloss.backend import Tensor, tf
from gitloss.centers import check_choice

FORMS = ('elementwise', 'pairwise')
# Up to this many dimensions summing the differences directly beats a matrix product.
_DIRECT_DIMENSIONS = 8
# Floats in a block of differences, which is processed at once: what the caches hold. Measured
# fastest of 2^14 to 2^24.
BLOCK_FLOATS = 1 << 20


def git_floor(labels: Tensor, form: str = 'elementwise') -> Tensor:
    """What the git term comes to when every sample lies on its center and the other centers are
    infinitely far away.

    It is the share of same-class pairs, which git loss keeps in: with batches of m balanced over K
    classes about 1/K, and in the elementwise form at least the 1/m of its diagonal. A git term near
    this floor has nothing left to push.

    Args:
      labels: int [batch].
      form: "elementwise" or "pairwise".

    Returns:
      A float32 scalar in [0, 1].

    Raises:
      ValueError: unknown form.
    """
    check_choice('form', form, FORMS)
    same = tf.reduce_sum(tf.cast(tf.equal(labels[:, None], labels[None, :]), tf.float32))
    batch = tf.cast(tf.shape(labels)[0], tf.float32)
    if form == 'elementwise':
        return same / (batch * batch)
    return (same - batch) / tf.maximum(batch * (batch - 1.0), 1.0)


def git_sums(
    embeddings: Tensor, labels: Tensor, rows: Tensor, form: str, method: str | None = None
) -> tuple[Tensor, Tensor]:
    """(total, gradient) in one pass, by the method that `losses.git_term` describes."""
    if method is None:
        few = form == 'elementwise' or embeddings.shape.as_list()[1] <= _DIRECT_DIMENSIONS
        method = 'direct' if few else 'gram'
    methods = ('direct', 'unrolled') if form == 'elementwise' else ('direct', 'gram', 'unrolled')
    if check_choice('method', method, methods) == 'gram':
        return gram_terms(embeddings, labels, rows)
    return direct_terms(embeddings, rows, form, method == 'unrolled')


def _block_terms(embeddings, first_row, rows, form):
    """Sum of the git terms of a block of samples against all centers of the batch, and half its
    negative gradient.

    embeddings [r, dim] are the samples first_row ... first_row + r - 1 of the batch; rows [m, dim]
    the centers of all m samples.

    Differences are taken before they are squared: nothing cancels, whatever the distance of the
    data from the origin. The batch is the last axis, because long sums along it are both faster and
    more exact (10 times at 4096) than across it.
    """
    size = tf.shape(embeddings)[0]
    other = tf.not_equal(first_row + tf.range(size)[:, None], tf.range(tf.shape(rows)[0])[None, :])
    other = tf.cast(other, embeddings.dtype)  # [r, m], 0 where i == j
    difference = embeddings[:, :, None] - tf.transpose(rows)[None, :, :]  # [r, dim, m]
    if form == 'elementwise':
        difference = difference * other[:, None, :]
        term = 1.0 / (1.0 + tf.square(difference))
        return tf.reduce_sum(term), tf.reduce_sum(difference * tf.square(term), axis=2)
    term = other / (1.0 + tf.reduce_sum(tf.square(difference), axis=1))  # [r, m]
    return tf.reduce_sum(term), tf.reduce_sum(difference * tf.square(term)[:, None, :], axis=2)


def direct_terms(
    embeddings: Tensor, rows: Tensor, form: str, unrolled: bool = False
) -> tuple[Tensor, Tensor]:
    """The sums in one pass over blocks of rows: 2^20 floats each, 2^24 where they are unrolled, or
    one row if that is more.
    """
    batch, dim = embeddings.shape.as_list()
    block = 1  # an unknown batch goes row by row
    if batch is not None:
        limit = 16 * BLOCK_FLOATS if unrolled else BLOCK_FLOATS
        block = max(
            r
            for r in range(1, batch + 1)
            if batch % r == 0 and (r == 1 or r * batch * dim <= limit)
        )
    if block == batch:
        return _block_terms(embeddings, 0, rows, form)
    if unrolled:
        sums, gradients = zip(
            *(
                _block_terms(embeddings[first : first + block], first, rows, form)
                for first in range(0, batch, block)
            )
        )
        return tf.add_n(sums), tf.concat(gradients, axis=0)
    blocks = tf.reshape(embeddings, [-1, block, dim])
    first_rows = tf.range(tf.shape(blocks)[0]) * block
    sums, gradients = tf.map_fn(
        lambda args: _block_terms(args[0], args[1], rows, form),
        (blocks, first_rows),
        dtype=(embeddings.dtype, embeddings.dtype),
        parallel_iterations=1,
        back_prop=False,
    )
    return tf.reduce_sum(sums), tf.reshape(gradients, tf.shape(embeddings))


def gram_terms(embeddings: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The pairwise terms by ||x||^2 + ||c||^2 - 2 x.c: two matrix products, O(batch^2) floats.

    In float64 and around the mean center, because the expansion cancels when samples lie near a
    center and far from the origin: float32 would be off by 6e-8 (||x||^2 + ||c||^2) in the squared
    distance, 6 at a norm of 1e4. Same-class pairs, which share their center with the sample, take
    the difference x_i - c_{y_i} itself, however far apart the classes are. What is left is an error
    of some 1e-16 times the squared spread of the centers where a sample lies near a center of
    *another* class: 1e-5 of the loss if the others are 1e5 away, below 1e-3 at 1e6. Beyond that
    take the direct method.
    """
    x, c, own = (tf.cast(tensor, tf.float64) for tensor in (embeddings, rows, embeddings - rows))
    origin = tf.reduce_mean(c, axis=0, keepdims=True)
    x, c = x - origin, c - origin
    same = tf.equal(labels[:, None], labels[None, :])  # [m, m], the diagonal included
    partners = tf.cast(tf.reduce_sum(tf.cast(same, tf.int32), axis=1) - 1, tf.float64)
    # [m]: the term of each pair of sample i with another sample of its class
    own_term = 1.0 / (1.0 + tf.reduce_sum(own * own, axis=1))
    squared = (
        tf.reduce_sum(x * x, axis=1)[:, None]
        + tf.reduce_sum(c * c, axis=1)[None, :]
        - 2.0 * tf.matmul(x, c, transpose_b=True)
    )
    nothing = tf.zeros([], tf.float64)
    term = tf.where_v2(same, nothing, 1.0 / (1.0 + tf.maximum(squared, nothing)))
    weight = tf.square(term)
    gradient = (
        own * (partners * tf.square(own_term))[:, None]
        + x * tf.reduce_sum(weight, axis=1)[:, None]
        - tf.matmul(weight, c)
    )
    total = tf.reduce_sum(term) + tf.reduce_sum(partners * own_term)
    return tf.cast(total, embeddings.dtype), tf.cast(gradient, embeddings.dtype)
