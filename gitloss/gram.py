"""The pairwise git term by ||x - c||^2 = ||x||^2 + ||c||^2 - 2 x.c: matrix products, O(batch^2)
floats.

The expansion cancels when a sample lies near a center and far from the origin. Coordinates are
relative to the mean center, and pairs of one class use the difference x_i - c_{y_i} itself. On a
CPU pairs of different classes are computed in float32, with a bound of the rounding errors; where
the bound is too large, because samples lie near centers of other classes, and everywhere else, they
are computed in float64. The error of that is about 1e-16 times the squared diameter of the centers:
1e-5 of the loss for a diameter of 1e5, below 1e-3 for 1e6. Beyond, use the direct method.
"""

from __future__ import annotations

from gitloss.backend import Tensor, tf
from gitloss.compilation import compiled, is_compiled_for

# Limits of the risks of `_fast`, relative to the value and to the largest entry of the gradient. In
# 18,000 random batches of 16 to 512 dimensions, before sums were made in parts, values were at most
# 4e-7 off and gradients 1.1e-6 of their largest entry; in 4,000 since, 3e-7 and 7.4e-7.
VALUE_RISK = 4.0
GRADIENT_RISK = 4.5


def _sums(rows: Tensor) -> Tensor:
    """Sums of rows, [m, 1] of [m, n], in float64: where terms are equal, as those of equal centers,
    long sums in float32 round in one direction. Up to 16 terms, n / 16 apart, are added in the type
    of `rows` first: XLA vectorizes that sum, but not one over the last axis.
    """
    count = rows.shape.as_list()[1]
    terms = next(size for size in (16, 8, 4, 2, 1) if count % size == 0)
    parts = tf.reduce_sum(tf.reshape(rows, [-1, terms, count // terms]), axis=1)
    return tf.reduce_sum(tf.cast(parts, tf.float64), axis=1, keepdims=True)


def _lengths(rows: Tensor) -> Tensor:
    """Squared lengths of rows: [m, 1] of [m, dim]."""
    return tf.cast(_sums(tf.square(rows)), rows.dtype)


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


@compiled
def _fast(
    embeddings: Tensor, own_labels: Tensor, own: Tensor, labels: Tensor, centers: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(total, gradient, whether their errors are within the limits) of all pairs, in float32.

    An error e in d^2 is an error w e of the term 1 / (1 + d^2), where w is its square, and one of
    2 w e d / (1 + d^2) < 2 w e / sqrt(1 + d^2) in the length of the pair's gradient w (x - c). With
    s = ||x||^2 + ||c||^2, e is about 6e-8 (s + 3 max(2 x.c, 0)), so
      value risk     sum over all pairs of w s
      gradient risk  [m, 1], sum over the pairs of a sample of w (s + 3 max(2 x.c, 0)) / 4 /
                     sqrt(1 + d^2), and of w (||x|| + ||c||) / 4 for the rounding of the difference
                     x sum w - sum w c
    """
    same = tf.equal(own_labels[:, None], labels[None, :])
    own_total, own_gradient = _same_class(embeddings, own, same)
    origin = tf.reduce_mean(centers, axis=0, keepdims=True)
    x, c = embeddings - origin, centers - origin
    x2, c2 = _lengths(x), tf.transpose(_lengths(c))
    product, s = 2.0 * tf.matmul(x, c, transpose_b=True), x2 + c2
    term = tf.where_v2(same, 0.0, 1.0 / (1.0 + tf.maximum(s - product, 0.0)))
    weight = tf.square(term)
    risk = tf.sqrt(term) * (s + 3.0 * tf.maximum(product, 0.0)) + tf.sqrt(x2) + tf.sqrt(c2)
    risk = 0.25 * tf.cast(_sums(weight * risk), x.dtype)
    gradient = own_gradient + x * tf.cast(_sums(weight), x.dtype) - tf.matmul(weight, c)
    total = own_total + tf.cast(tf.reduce_sum(_sums(term)), x.dtype)
    is_exact = tf.logical_and(  # False for NaN
        tf.cast(tf.reduce_sum(_sums(weight * s)), x.dtype) <= VALUE_RISK * total,
        tf.reduce_max(risk) <= GRADIENT_RISK * tf.reduce_max(tf.abs(gradient)),
    )
    return total, gradient, is_exact


def gram_terms(
    embeddings: Tensor, labels: Tensor, centers: Tensor, first_row: int | None = None
) -> tuple[Tensor, Tensor]:
    """(total, gradient), see `gitloss.pairs`."""
    own_labels, own = labels, centers
    if first_row is not None:
        end = first_row + embeddings.shape.as_list()[0]
        own_labels, own = labels[first_row:end], centers[first_row:end]

    def exact() -> tuple[Tensor, Tensor]:
        same = tf.equal(own_labels[:, None], labels[None, :])
        total, gradient = _exact(embeddings, centers, same)
        own_total, own_gradient = _same_class(embeddings, own, same)
        return total + own_total, gradient + own_gradient

    if embeddings.dtype == tf.float64 or not is_compiled_for(embeddings):
        return exact()
    total, gradient, is_exact = _fast(embeddings, own_labels, own, labels, centers)
    return tf.cond(is_exact, lambda: (total, gradient), exact)
