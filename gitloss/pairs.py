"""The git term over all pairs of a batch: sum, gradient, and lower bound of the mean.

With the own center c_j = centers[j] of each of the m samples of a batch, and the embeddings x
[r, dim] of its samples first_row ... first_row + r - 1 (None: of all), `git_sums`, `direct_terms`
and `gitloss.gram.gram_terms` return
    total     sum over pairs of 1 / (1 + d^2), with d as in `gitloss.losses` for the form
    gradient  [r, dim], sum over j of (x_i - c_j) / (1 + d^2)^2; -2 times it is the gradient of the
              total
"""

from __future__ import annotations

from gitloss.backend import Tensor, tf
from gitloss.compilation import compiled, is_compiled_for
from gitloss.errors import check_choice
from gitloss.gram import gram_terms

FORMS = ('elementwise', 'pairwise')
# Up to this many dimensions the direct sum of differences is faster than a matrix product.
_DIRECT_DIMENSIONS = 8
# Floats in a block of differences: it should fit into the CPU caches. Measured fastest of 2^14 to
# 2^24.
BLOCK_FLOATS = 1 << 20
_CHUNK = 64  # a multiple of 4


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
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    form: str,
    method: str | None = None,
    first_row: int | None = None,
) -> tuple[Tensor, Tensor]:
    """(total, gradient), computed together by one of the methods of `losses.git_term`."""
    if method is None:
        few = form == 'elementwise' or embeddings.shape.as_list()[1] <= _DIRECT_DIMENSIONS
        method = 'direct' if few else 'gram'
    methods = ('direct', 'unrolled') if form == 'elementwise' else ('direct', 'gram', 'unrolled')
    if check_choice('method', method, methods) == 'gram':
        return gram_terms(embeddings, labels, centers, first_row)
    many = embeddings.shape.as_list()[1] > _DIRECT_DIMENSIONS  # in fewer it is no faster
    if form == 'elementwise' and method == 'direct' and many and is_compiled_for(embeddings):
        rows = (first_row or 0) + tf.range(embeddings.shape.as_list()[0])[:, None]
        total, gradient = _coordinate_sums(embeddings, rows, centers)
        return tf.reduce_sum(total), gradient
    return direct_terms(embeddings, centers, form, method == 'unrolled', first_row or 0)


@compiled
def _coordinate_sums(embeddings: Tensor, rows: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over j of 1 / (1 + d^2) and of d / (1 + d^2)^2 for each coordinate d of x_i - c_j, 0
    where i == j: both [r, dim]. `rows` [r, 1] are the i.

    XLA makes one operation of an iteration, which reads and writes the sums once for `step` centers
    and divides its rows among the cores. The order of a sum does not depend on them. Sums of
    `_CHUNK` centers are added to the whole ones, which is 15 times more exact at 4096 centers.
    """
    batch = centers.shape[0]
    step = next(size for size in (4, 2, 1) if batch % size == 0)  # of 1 to 16, 4 was the fastest
    zeros = tf.zeros_like(embeddings)

    def add_centers(first: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
        added = []
        for j in range(step):
            other = tf.cast(tf.not_equal(rows, first + j), embeddings.dtype)
            difference = (embeddings - centers[first + j]) * other
            term = 1.0 / (1.0 + tf.square(difference))
            added.append((term, difference * tf.square(term)))
        return (first + step, *(sums[k] + sum(part[k] for part in added) for k in (0, 1)))

    def add_chunk(first: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
        end = tf.minimum(first + _CHUNK, batch)
        end, *parts = tf.while_loop(lambda j, *_: j < end, add_centers, (first, zeros, zeros))
        return (end, *(whole + part for whole, part in zip(sums, parts)))

    return tf.while_loop(lambda first, *_: first < batch, add_chunk, (0, zeros, zeros))[1:]


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
    embeddings: Tensor, centers: Tensor, form: str, unrolled: bool = False, first_row: int = 0
) -> tuple[Tensor, Tensor]:
    """The sums over blocks of samples: 2^20 floats each, 2^24 if unrolled, at least one sample."""
    count, dim = embeddings.shape.as_list()
    batch = centers.shape.as_list()[0]
    block = 1  # for an unknown batch size
    if count is not None and batch is not None:
        limit = 16 * BLOCK_FLOATS if unrolled else BLOCK_FLOATS
        block = max(
            r
            for r in range(1, count + 1)
            if count % r == 0 and (r == 1 or r * batch * dim <= limit)
        )
    if block == count:
        return _block_terms(embeddings, first_row, centers, form)
    if unrolled:
        sums, gradients = zip(
            *(
                _block_terms(embeddings[i : i + block], first_row + i, centers, form)
                for i in range(0, count, block)
            )
        )
        return tf.add_n(sums), tf.concat(gradients, axis=0)
    blocks = tf.reshape(embeddings, [-1, block, dim])
    first_rows = first_row + tf.range(tf.shape(blocks)[0]) * block
    sums, gradients = tf.map_fn(
        lambda args: _block_terms(args[0], args[1], centers, form),
        (blocks, first_rows),
        dtype=(embeddings.dtype, embeddings.dtype),
        parallel_iterations=1,
        back_prop=False,
    )
    return tf.reduce_sum(sums), tf.reshape(gradients, tf.shape(embeddings))
