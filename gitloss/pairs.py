"""The git term over all pairs of a batch: sum, gradient, and lower bound of the mean.

With embeddings x [m, dim] and the own center c_j = centers[j] of each sample, `git_sums`,
`direct_terms` and `gram_terms` return
    total     sum over pairs of 1 / (1 + d^2), with d as in `gitloss.losses` for the form
    gradient  [m, dim], sum over j of (x_i - c_j) / (1 + d^2)^2; -2 times it is the gradient of the
              total
"""

from __future__ import annotations

from gitloss.backend import Tensor, tf
from gitloss.errors import check_choice

FORMS = ('elementwise', 'pairwise')
# Up to this many dimensions the direct sum of differences is faster than a matrix product.
_DIRECT_DIMENSIONS = 8
# Floats in a block of differences: it should fit into the CPU caches. Measured fastest of 2^14 to
# 2^24.
BLOCK_FLOATS = 1 << 20


def git_floor(labels: Tensor, form: str = 'elementwise') -> Tensor:
    """The git term when every sample lies on its center and the other centers are infinitely far
    away.

    It is the fraction of same-class pairs, which git loss includes: about 1/K for batches balanced
    over K classes, and in the elementwise form at least 1/m, its diagonal. A git term near this
    floor cannot decrease further.

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
    embeddings: Tensor, labels: Tensor, centers: Tensor, form: str, method: str | None = None
) -> tuple[Tensor, Tensor]:
    """(total, gradient), computed together by one of the methods of `losses.git_term`."""
    if method is None:
        few = form == 'elementwise' or embeddings.shape.as_list()[1] <= _DIRECT_DIMENSIONS
        method = 'direct' if few else 'gram'
    methods = ('direct', 'unrolled') if form == 'elementwise' else ('direct', 'gram', 'unrolled')
    if check_choice('method', method, methods) == 'gram':
        return gram_terms(embeddings, labels, centers)
    return direct_terms(embeddings, centers, form, method == 'unrolled')


def _block_terms(
    embeddings: Tensor, first_row: Tensor, centers: Tensor, form: str
) -> tuple[Tensor, Tensor]:
    """(total, gradient) of a block of samples against all centers of the batch.

    embeddings [r, dim] are the samples first_row ... first_row + r - 1 of the batch; centers
    [m, dim] are those of all m samples.

    Differences are computed before they are squared, so that nothing cancels far from the origin.
    The batch is the last axis: long sums along it are faster and more exact (10 times at 4096) than
    across it.
    """
    rows = first_row + tf.range(tf.shape(embeddings)[0])
    other = tf.cast(  # [r, m], 0 where i == j
        tf.not_equal(rows[:, None], tf.range(tf.shape(centers)[0])[None, :]), embeddings.dtype
    )
    difference = embeddings[:, :, None] - tf.transpose(centers)[None, :, :]  # [r, dim, m]
    if form == 'elementwise':
        difference = difference * other[:, None, :]
        term = 1.0 / (1.0 + tf.square(difference))
        return tf.reduce_sum(term), tf.reduce_sum(difference * tf.square(term), axis=2)
    term = other / (1.0 + tf.reduce_sum(tf.square(difference), axis=1))  # [r, m]
    return tf.reduce_sum(term), tf.reduce_sum(difference * tf.square(term)[:, None, :], axis=2)


def direct_terms(
    embeddings: Tensor, centers: Tensor, form: str, unrolled: bool = False
) -> tuple[Tensor, Tensor]:
    """The sums over blocks of samples: 2^20 floats each, 2^24 if unrolled, at least one sample."""
    batch, dim = embeddings.shape.as_list()
    block = 1  # for an unknown batch size
    if batch is not None:
        limit = 16 * BLOCK_FLOATS if unrolled else BLOCK_FLOATS
        block = max(
            r
            for r in range(1, batch + 1)
            if batch % r == 0 and (r == 1 or r * batch * dim <= limit)
        )
    if block == batch:
        return _block_terms(embeddings, 0, centers, form)
    if unrolled:
        sums, gradients = zip(
            *(
                _block_terms(embeddings[first : first + block], first, centers, form)
                for first in range(0, batch, block)
            )
        )
        return tf.add_n(sums), tf.concat(gradients, axis=0)
    blocks = tf.reshape(embeddings, [-1, block, dim])
    first_rows = tf.range(tf.shape(blocks)[0]) * block
    sums, gradients = tf.map_fn(
        lambda args: _block_terms(args[0], args[1], centers, form),
        (blocks, first_rows),
        dtype=(embeddings.dtype, embeddings.dtype),
        parallel_iterations=1,
        back_prop=False,
    )
    return tf.reduce_sum(sums), tf.reshape(gradients, tf.shape(embeddings))


def gram_terms(embeddings: Tensor, labels: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The pairwise terms by ||x||^2 + ||c||^2 - 2 x.c: two matrix products, O(batch^2) floats.

    They are computed in float64 around the mean center, because the expansion cancels when samples
    lie near a center and far from the origin: the error of float32 is 6e-8 (||x||^2 + ||c||^2) in
    the squared distance, 6 at a norm of 1e4. Same-class pairs use the difference x_i - c_{y_i}
    itself. The remaining error, where a sample lies near a center of *another* class, is about
    1e-16 times the squared diameter of the centers: 1e-5 of the loss for a diameter of 1e5, below
    1e-3 for 1e6. Beyond that, use the direct method.
    """
    x, c, own = (
        tf.cast(tensor, tf.float64) for tensor in (embeddings, centers, embeddings - centers)
    )
    origin = tf.reduce_mean(c, axis=0, keepdims=True)
    x, c = x - origin, c - origin
    same = tf.equal(labels[:, None], labels[None, :])  # [m, m], the diagonal included
    partners = tf.cast(tf.reduce_sum(tf.cast(same, tf.int32), axis=1) - 1, tf.float64)
    # [m]: the term of a pair of sample i and another sample of its class
    own_term = 1.0 / (1.0 + tf.reduce_sum(own * own, axis=1))
    squared = (
        tf.reduce_sum(x * x, axis=1)[:, None]
        + tf.reduce_sum(c * c, axis=1)[None, :]
        - 2.0 * tf.matmul(x, c, transpose_b=True)
    )
    zero = tf.zeros([], tf.float64)
    term = tf.where_v2(same, zero, 1.0 / (1.0 + tf.maximum(squared, zero)))
    weight = tf.square(term)
    gradient = (
        own * (partners * tf.square(own_term))[:, None]
        + x * tf.reduce_sum(weight, axis=1)[:, None]
        - tf.matmul(weight, c)
    )
    total = tf.reduce_sum(term) + tf.reduce_sum(partners * own_term)
    return tf.cast(total, embeddings.dtype), tf.cast(gradient, embeddings.dtype)
