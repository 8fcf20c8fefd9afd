"""The objective L = L_S + lambda_c L_C + lambda_g L_G, of a training step and of an evaluation.

With several workers each one computes the terms of its own part of the batch: the softmax term, the
distances of its samples to their centers, and the pairs of its samples with all samples of the
batch. The parts are summed once. With --shard_classes the softmax term, and so its gradient for a
worker's class weights, is that of the whole batch.
"""

from __future__ import annotations

from typing import Mapping

from gitloss import data, losses
from gitloss.backend import Tensor, tf
from gitloss.centers import CenterTable
from gitloss.heads import Classifier
from gitloss.sharding import ShardedClassifier
from trainers.options import Options
from trainers.workers.group import OneWorker


def _with_sum(terms: dict[str, Tensor], weights: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
    """Adds the loss. A term of weight 0 is computed for the logs, but not added."""
    total = terms['softmax_loss']
    with tf.name_scope('loss'):
        for name, weight in weights.items():
            if name in terms and not (isinstance(weight, float) and weight == 0.0):
                total += weight * terms[name]
    return {'loss': total, **terms}


class Objective:
    """Builds the terms and their sum.

    Args:
      options: gives lambda_c, lambda_g, git_loss_form, distance and the sampling of the classes.
      classifier: its head sets the margin of the softmax term.
      center_table: the centers.
      group: the workers that train as one.
      method: of the git term, see `losses.git_term`.
    """

    def __init__(
        self,
        options: Options,
        classifier: Classifier | ShardedClassifier,
        center_table: CenterTable,
        group: OneWorker,
        method: str | None = None,
    ) -> None:
        self._options, self._classifier = options, classifier
        self._table, self._group, self._method = center_table, group, method
        self._part = data.part_of(options.batch_size, group.rank, group.size)
        self._is_sharded = isinstance(classifier, ShardedClassifier)

    def softmax(
        self, embeddings: Tensor, labels: Tensor, all_labels: Tensor, step: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(the softmax term, the predictions int32 [rows]) of this worker's rows, see `terms`.

        Args:
          step: of the training; None: an evaluation, which takes all classes.
        """
        with tf.name_scope('softmax_loss'):
            if isinstance(self._classifier, ShardedClassifier):
                sampled = step if self._options.sample_classes < 1 else None
                loss, predictions = self._classifier.softmax(
                    embeddings, all_labels, self._group.all_gather, sampled
                )
                return loss, predictions if self._group.size == 1 else predictions[self._part]
            logits = self._classifier.logits(embeddings)
            predictions = tf.argmax(logits, 1, output_type=tf.int32)
            logits = self._classifier.training_logits(logits, labels)
            return self.part_of_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            ), predictions

    def decay(self, variables: list[Tensor], own: list[Tensor]) -> Tensor | None:
        """This worker's part of weight_decay / 2 sum ||w||^2 over `variables`, plus the scalars
        `own`, the penalties of the network's layers. Only the training has this term. None if there
        is neither.

        Of sampled classes those of the step count: the others do not move. After `softmax`.
        """
        weight = self._options.weight_decay
        shards = {one.op.name for one in getattr(self._classifier, 'shards', [])}
        is_here = [variable.op.name in shards for variable in variables]
        with tf.name_scope('weight_decay_loss'):
            shared = [
                weight * tf.nn.l2_loss(variable)
                for variable, is_shard in zip(variables, is_here)
                if weight and not is_shard
            ]
            parts = [self.part_of_mean(tf.add_n([*own, *shared]))] if own or shared else []
            if weight and any(is_here) and isinstance(self._classifier, ShardedClassifier):
                parts += [weight * value for value in self._classifier.squares()]
            return tf.add_n(parts) if parts else None

    def weights(self, step: Tensor | None = None) -> dict[str, Tensor | float]:
        """{term: weight in the loss} of the terms besides the softmax; 0.0 for one that is only
        logged.

        Args:
          step: int64 scalar, the training steps done: in step n of --lambda_warmup_steps the center
            and git losses have n / lambda_warmup_steps of their weights. None: an evaluation,
            always with the whole weights.
        """
        options, factor = self._options, 1.0
        if step is not None and options.lambda_warmup_steps:
            part = tf.cast(step + 1, tf.float32) / float(options.lambda_warmup_steps)
            factor = tf.minimum(part, 1.0)
        return {
            'center_loss': options.lambda_c and options.lambda_c * factor,
            'git_loss': options.lambda_g and options.lambda_g * factor,
            'weight_decay_loss': 1.0,
        }

    def terms(
        self,
        softmax: Tensor,
        embeddings: Tensor,
        all_labels: Tensor,
        own_centers: Tensor,
        weights: Mapping[str, Tensor | float],
        decay: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{name: scalar}: `loss`, `softmax_loss`, `center_loss`, `git_loss`, and
        `weight_decay_loss` if there is a `decay`: this worker's parts, but for the softmax loss of
        sharded classes, which is whole.

        Args:
          softmax: of `softmax`.
          embeddings: float32 [rows, dim] of this worker.
          all_labels: int [batch].
          own_centers: float32 [batch, dim].
          weights: of `weights`.
        """
        settings = {'form': self._options.git_loss_form, 'distance': self._options.distance}
        is_alone = self._group.size == 1
        with tf.name_scope('center_loss'):
            own = own_centers if is_alone else own_centers[self._part]
            center = self.part_of_mean(losses.center_term(embeddings, own, **settings))
        with tf.name_scope('git_loss'):
            git = losses.git_term(
                embeddings,
                all_labels,
                own_centers,
                method=self._method,
                first_row=None if is_alone else self._part.start,
                **settings,
            )
        terms = {'softmax_loss': softmax, 'center_loss': center, 'git_loss': git}
        if decay is not None:
            terms['weight_decay_loss'] = decay
        return _with_sum(terms, weights)

    def part_of_mean(self, values: Tensor) -> Tensor:
        """The part of this worker's values in their mean over all workers."""
        mean = tf.reduce_mean(values)
        return mean if self._group.size == 1 else mean / self._group.size

    def reduced(
        self,
        terms: dict[str, Tensor],
        tensors: list[Tensor],
        weights: Mapping[str, Tensor | float],
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Sums the parts of all workers in the terms and the tensors, in one reduction.

        Args:
          weights: of `weights`.
        """
        if self._group.size == 1:
            return terms, tensors
        whole = {'softmax_loss': terms['softmax_loss']} if self._is_sharded else {}
        names = [name for name in terms if name != 'loss' and name not in whole]
        sums = self._group.all_reduce([terms[name] for name in names] + tensors)
        whole.update(zip(names, sums))
        return _with_sum(whole, weights), sums[len(names) :]
