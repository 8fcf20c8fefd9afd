"""The pairwise git term by ||x - c||^2 = ||x||^2 + ||c||^2 - 2 x.c: matrix products, O(batch^2)
floats.

The expansion cancels when a sample lies near a center and far from the origin. Coordinates are
relative to the mean center, and pairs of one class use the difference x_i - c_{y_i} itself. Pairs
of different classes are computed in float32, with a bound of the rounding errors; where the bound
is too large, because samples lie near centers of other classes, they are computed in float64.
"""

from __future__ import annotations

from gitloss.backend import Tensor, tf

# Limits of the risks of `_fast`, relative to the value and to the longest row of the gradient. A
# squared distance is off by 6e-8 to 2.4e-7 of ||x||^2 + ||c||^2. In 8,000 random geometries below
# these limits the value was at most 1e-6 off, the gradient 1.1e-6 of its largest entry.
VALUE_RISK = 4.0
GRADIENT_RISK = 1.0


def _lengths(rows: Tensor) -> Tensor:
    """Squared lengths: [m, 1] of [m, dim]."""
    return tf.reduce_sum(tf.square(rows), axis=1, keepdims=True)


def _same_class(embeddings: Tensor, centers: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """(total, gradient) of the pairs of one class, without the diagonal."""
    own = embeddings - centers
    partners = tf.reduce_sum(tf.cast(same, own.dtype), axis=1, keepdims=True) - 1.0
    term = 1.0 / (1.0 + _lengths(own))  # [m, 1]: of sample i and another sample of its class
    return tf.reduce_sum(partners * term), own * (partners * tf.square(term))


def _exact(embeddings: Tensor, centers: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """(total, gradient) of the pairs of different classes, computed in float64."""
    x, c = tf.cast(embeddings, tf.float64), tf.cast(centers, tf.float64)
    origin = tf.reduce_mean(c, axis=0, keepdims=True)
    x, c = x - origin, c - origin
    squared = _lengths(x) + tf.transpose(_lengths(c)) - 2.0 * tf.matmul(x, c, transpose_b=True)
    zero = tf.zeros([], tf.float64)
    term = tf.where_v2(same, zero, 1.0 / (1.0 + tf.maximum(squared, zero)))
    weight = tf.square(term)
    gradient = x * tf.reduce_sum(weight, axis=1, keepdims=True) - tf.matmul(weight, c)
    return tuple(tf.cast(sums, embeddings.dtype) for sums in (tf.reduce_sum(term), gradient))


def _fast(
    embeddings: Tensor, centers: Tensor, same: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(total, gradient, value risk, gradient risk) of the pairs of different classes, in float32.

    An error e in d^2 is an error w e of the term 1 / (1 + d^2), where w is its square, and one of
    2 w e d / (1 + d^2) < 2 w e / sqrt(1 + d^2) in the length of the pair's gradient w (x - c). With
    s = ||x||^2 + ||c||^2, e is about 6e-8 (s + 3 max(2 x.c, 0)), so
      value risk     sum over all pairs of w s
      gradient risk  [m, 1], sum over the pairs of a sample of w (s + 3 max(2 x.c, 0)) / 4 /
                     sqrt(1 + d^2), and of w (||x|| + ||c||) / 4 for the rounding of the difference
                     x sum w - sum w c
    """
    origin = tf.reduce_mean(centers, axis=0, keepdims=True)
    x, c = embeddings - origin, centers - origin
    x2, c2 = _lengths(x), _lengths(c)
    one = tf.ones_like(x2)
    # 1 + ||x||^2 + ||c||^2 - 2 x.c in one product.
    spread = tf.matmul(
        tf.concat([-2.0 * x, 1.0 + x2, one], 1), tf.concat([c, one, c2], 1), transpose_b=True
    )
    term = tf.where_v2(same, tf.zeros([]), 1.0 / tf.maximum(spread, 1.0))
    weight = tf.square(term)
    dim = x.shape.as_list()[1]
    by_center, w_c2, w_c = tf.split(
        tf.matmul(weight, tf.concat([c, c2, tf.sqrt(c2)], 1)), [dim, 1, 1], axis=1
    )
    # Not by the product: of equal terms, as those of equal centers, a sum in float32 is 5e-6 off.
    weights = tf.cast(tf.reduce_sum(tf.cast(weight, tf.float64), axis=1, keepdims=True), tf.float32)
    scale = weight * tf.sqrt(term)
    scales, scale_c2 = tf.split(tf.matmul(scale, tf.concat([one, c2], 1)), 2, axis=1)
    # s + 3 max(2 x.c, 0) = 4 s + 3 - 3 min(1 + d^2, 1 + s)
    nearest = tf.minimum(spread, 1.0 + x2 + tf.transpose(c2))
    nearest = tf.reduce_sum(scale * nearest, axis=1, keepdims=True)
    risk = x2 * scales + scale_c2 + 0.75 * (scales - nearest)
    risk += 0.25 * (tf.sqrt(x2) * weights + w_c)
    value_risk = tf.reduce_sum(x2 * weights + w_c2)
    total = tf.reduce_sum(tf.cast(tf.reduce_sum(term, axis=1), tf.float64))
    return tf.cast(total, tf.float32), x * weights - by_center, value_risk, risk


def gram_terms(embeddings: Tensor, labels: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """(total, gradient), see `gitloss.pairs`."""
    same = tf.equal(labels[:, None], labels[None, :])  # [m, m], the diagonal included
    inputs = embeddings, centers, same
    own_total, own_gradient = _same_class(*inputs)
    if embeddings.dtype == tf.float64:
        total, gradient = _exact(*inputs)
        return total + own_total, gradient + own_gradient
    total, gradient, value_risk, risk = _fast(*inputs)
    longest = tf.sqrt(tf.reduce_max(_lengths(gradient + own_gradient)))
    is_exact = tf.logical_and(  # False for NaN
        value_risk <= VALUE_RISK * (total + own_total),
        tf.reduce_max(risk) <= GRADIENT_RISK * longest,
    )
    total, gradient = tf.cond(is_exact, lambda: (total, gradient), lambda: _exact(*inputs))
    return total + own_total, gradient + own_gradient
