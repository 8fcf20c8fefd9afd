"""The gradients of the weighted terms of the loss with respect to the embeddings.

They tell how hard each term moves the embeddings, and in which direction. The network is not passed
again, nor are the classes: the gradients of the center and git terms are written by hand, products
of [rows, dim] numbers, and that of the softmax term is taken from the step's own backward pass.
"""

from __future__ import annotations

import itertools
from typing import Mapping

from gitloss.backend import Tensor, tf
from gitloss.gradients import Observer

# Of all gradients, an exact one. TensorFlow merges equal operations and then adds in the order of
# their names: without a factor that no training has, the step's own sums would change their order.
_FACTOR = 2.0**20


def gradient_products(
    observer: Observer, terms: Mapping[str, Tensor], embeddings: Tensor, scale: Tensor | None = None
) -> Tensor:
    """This worker's part of the scalar products of each two of the gradients.

    Args:
      observer: of the classifier; the backward pass of the loss has been built.
      terms: of `Objective.terms`. Their weights are the gradients of `loss` with respect to them,
        whatever they depend on.
      embeddings: float32 [rows, dim] of this worker.
      scale: that of the loss in the backward pass; None: 1.

    Returns:
      float32 [3, 3], in the order softmax, center, git; a term of weight 0 has products of 0. The
      parts of all workers add up.
    """
    with tf.name_scope('gradient_products'):
        factor = _FACTOR if scale is None else _FACTOR / scale
        gradients = [observer.gradient(embeddings, factor)]
        gradients += [_weighted(terms, name, embeddings) for name in ('center_loss', 'git_loss')]
        products = {
            (one, other): tf.reduce_sum(gradients[one] * gradients[other])
            for one, other in itertools.combinations_with_replacement(range(3), 2)
        }
        places = itertools.product(range(3), repeat=2)
        table = tf.stack([products[min(pair), max(pair)] for pair in places])
        return tf.reshape(table / _FACTOR**2, [3, 3])


def _weighted(terms: Mapping[str, Tensor], name: str, embeddings: Tensor) -> Tensor:
    weight = tf.gradients(terms['loss'], terms[name])[0]
    if weight is None:
        return tf.zeros_like(embeddings)
    return tf.gradients(terms[name], embeddings, _FACTOR * weight)[0]
