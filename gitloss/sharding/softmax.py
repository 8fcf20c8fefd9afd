"""The softmax cross-entropy over classes in shards, exactly.

With the logits z of a shard, and of all shards together
    m = max z,  S = sum exp(z - m),  t = z at the label,  loss = mean(m + log S - t)
a shard gives the statistics of its own logits, [shards, 5, batch] are gathered once, and
    dz = (exp(z - m) / S - onehot) / batch
needs nothing else of the others. Its gradient with respect to the features is summed over the
shards, that with respect to a shard's weights is whole. No probability is clamped.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Sequence

from gitloss.backend import Tensor, tf
from gitloss.gradients import custom_gradient


class ShardLogits(NamedTuple):
    """The logits of a shard.

    Attributes:
      plain: () -> [batch, columns], for the predictions.
      training: plain -> the same with margin and offset, for the loss.
      inputs: the tensors that they are functions of: the features, then the weights.
      own: int [batch], the column of each sample's label, -1: not in this shard.
      classes: int32 [columns], the class of each column.
    """

    plain: Callable[[], Tensor]
    training: Callable[[Tensor], Tensor]
    inputs: Sequence[Tensor]
    own: Tensor
    classes: Tensor


def _at_label(values: Tensor, own: Tensor) -> Tensor:
    """[batch], of [batch, columns] the one at the label; 0 where it is not in this shard."""
    columns = tf.maximum(own, 0)
    places = tf.stack([tf.range(tf.shape(columns)[0]), columns], axis=1)
    return tf.where_v2(own >= 0, tf.gather_nd(values, places), 0.0)


def _statistics(plain: Tensor, logits: Tensor, shard: ShardLogits) -> Tensor:
    """[5, batch]: m, S and t of this shard, the largest plain logit, the bits of its class."""
    largest = tf.reduce_max(logits, axis=1)
    total = tf.reduce_sum(tf.exp(logits - largest[:, None]), axis=1)
    predicted = tf.gather(shard.classes, tf.argmax(plain, axis=1))
    return tf.stack(
        [
            largest,
            total,
            _at_label(logits, shard.own),
            tf.reduce_max(plain, axis=1),
            tf.bitcast(predicted, tf.float32),
        ]
    )


def _combined(statistics: Tensor) -> tuple[Tensor, ...]:
    """(m, log S, t, predictions int32) of all shards, each [batch], of [shards, 5, batch]."""
    largest, totals, own, plain, predicted = tf.unstack(statistics, axis=1)
    whole = tf.reduce_max(largest, axis=0)
    total = tf.reduce_sum(totals * tf.exp(largest - whole), axis=0)
    best = tf.argmax(plain, axis=0, output_type=tf.int32)  # of equals the first, as in one matrix
    places = tf.stack([best, tf.range(tf.shape(best)[0])], axis=1)
    predictions = tf.bitcast(tf.gather_nd(predicted, places), tf.int32)
    return whole, tf.math.log(total), tf.reduce_sum(own, axis=0), predictions


def sharded_softmax(
    shards: Sequence[ShardLogits],
    gather: Callable[[Tensor], Tensor],
    keep_logits: bool = True,
    gates: list | None = None,
) -> tuple[Tensor, Tensor]:
    """(the loss, a scalar; the predictions, int32 [batch]), the same on all workers.

    Args:
      shards: those of this worker; the shards of all workers are in the order of their classes.
      gather: [rows, ...] of this worker -> the rows of all workers, in the order of their ranks.
      keep_logits: False: the backward pass computes the logits of a shard again, one shard after
        another, so that those of one shard are in memory at a time.
      gates: without kept logits the backward pass appends an operation for each shard but the last:
        it runs after the gradients of that shard and before those of the next.
    """
    statistics: list[Tensor] = []
    kept = []
    for shard in shards:
        before = [] if keep_logits else statistics[-1:]
        with tf.control_dependencies(before):
            plain = shard.plain()
            logits = shard.training(plain)
        statistics.append(_statistics(plain, logits, shard))
        kept.append(logits)
    gathered = gather(tf.stop_gradient(tf.stack(statistics)))
    largest, log_total, own, predictions = _combined(gathered)
    loss = tf.reduce_mean(largest + log_total - own)
    normaliser = (largest + log_total)[:, None]

    def backward(upstream: Tensor) -> tuple[Tensor, ...]:
        return _gradients(shards, kept if keep_logits else [], normaliser, upstream, gates)

    inputs = [shards[0].inputs[0], *(one for shard in shards for one in shard.inputs[1:])]
    return custom_gradient(lambda *_: (loss, backward))(*inputs), predictions


def _gradients(
    shards: Sequence[ShardLogits],
    kept: list[Tensor],
    normaliser: Tensor,
    upstream: Tensor,
    gates: list | None,
) -> tuple[Tensor, ...]:
    """The gradients of the features, and of the weights of all shards. kept: the logits, if any."""
    of_features: list[Tensor] = []
    of_weights: list[Tensor] = []
    for number, shard in enumerate(shards):
        if kept:
            logits = kept[number]
        else:
            with tf.control_dependencies([normaliser, *of_features[-1:]]):
                gate = tf.no_op()
            if of_features and gates is not None:
                gates.append(gate)
            with tf.control_dependencies([gate]):
                logits = shard.training(shard.plain())
        first, *rest = tf.gradients(
            logits, list(shard.inputs), _of_logits(logits, normaliser, shard.own, upstream)
        )
        of_features.append(first)
        # Weights that are still read when they are updated would be copied.
        with tf.control_dependencies([first]):
            of_weights += [tf.identity(gradient) for gradient in rest]
    return (tf.add_n(of_features), *of_weights)


def _of_logits(logits: Tensor, normaliser: Tensor, own: Tensor, upstream: Tensor) -> Any:
    """dz = upstream (softmax - onehot) / batch."""
    batch = tf.shape(own)[0]
    scale = upstream / tf.cast(batch, logits.dtype)
    places = tf.stack([tf.range(batch), tf.maximum(own, 0)], axis=1)
    taken = tf.where_v2(own >= 0, scale, 0.0)
    return tf.tensor_scatter_sub(scale * tf.exp(logits - normaliser), places, taken)
