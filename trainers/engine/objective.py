"""The objective L = L_S + lambda_c L_C + lambda_g L_G, of a training step and of an evaluation.

With several workers each one computes the softmax term on its part of the batch; the parts are
summed once. Embeddings and labels are gathered, so that every worker computes the center and git
terms on the whole batch.
"""

from __future__ import annotations

from gitloss import losses
from gitloss.backend import Tensor, tf
from gitloss.centers import CenterTable
from gitloss.heads import Classifier
from trainers.options import Options
from trainers.workers.group import OneWorker


class Objective:
    """Builds the terms and their sum.

    Args:
      options: gives lambda_c, lambda_g, git_loss_form and distance.
      classifier: its head sets the margin of the softmax term.
      center_table: the centers.
      group: the workers that train as one.
      method: of the git term, see `losses.git_term`.
    """

    def __init__(
        self,
        options: Options,
        classifier: Classifier,
        center_table: CenterTable,
        group: OneWorker,
        method: str | None = None,
    ) -> None:
        self._options, self._classifier = options, classifier
        self._table, self._group, self._method = center_table, group, method

    def decay(self, variables: list[Tensor], own: list[Tensor]) -> Tensor | None:
        """weight_decay / 2 sum ||w||^2 over `variables`, plus the scalars `own`, the penalties of
        the network's layers. Only the training has this term. None if there is neither.
        """
        weight = self._options.weight_decay
        parts = [*own, *(weight * tf.nn.l2_loss(variable) for variable in variables if weight)]
        with tf.name_scope('weight_decay_loss'):
            return tf.add_n(parts) if parts else None

    def terms(
        self,
        logits: Tensor,
        labels: Tensor,
        all_embeddings: Tensor,
        all_labels: Tensor,
        decay: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{name: scalar}: `loss`, `softmax_loss`, `center_loss`, `git_loss`, and
        `weight_decay_loss` if there is a `decay`.

        The softmax term and the decay, in the sum too, are this worker's parts. `logits` and
        `labels` are of this worker's part of the batch.
        """
        settings = {'form': self._options.git_loss_form, 'distance': self._options.distance}
        with tf.name_scope('softmax_loss'):
            logits = self._classifier.training_logits(logits, labels)
            softmax = self.part_of_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
        with tf.name_scope('center_loss'):
            own_centers = self._table.rows(all_labels)
            center = losses.center_term(all_embeddings, own_centers, **settings)
        with tf.name_scope('git_loss'):
            git = losses.git_term(
                all_embeddings, all_labels, own_centers, method=self._method, **settings
            )
        terms = {'softmax_loss': softmax, 'center_loss': center, 'git_loss': git}
        if decay is not None:
            terms['weight_decay_loss'] = self.part_of_mean(decay)
        return self._with_sum(terms)

    def part_of_mean(self, values: Tensor) -> Tensor:
        """The part of this worker's values in their mean over all workers."""
        mean = tf.reduce_mean(values)
        return mean if self._group.size == 1 else mean / self._group.size

    def _with_sum(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds the loss. A term of weight 0 is computed for the logs, but not added."""
        options, total = self._options, terms['softmax_loss']
        with tf.name_scope('loss'):
            for name, weight in (
                ('center_loss', options.lambda_c),
                ('git_loss', options.lambda_g),
                ('weight_decay_loss', 1.0),
            ):
                if weight and name in terms:
                    total += weight * terms[name]
        return {'loss': total, **terms}

    def reduced(
        self, terms: dict[str, Tensor], tensors: list[Tensor]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Sums the parts of all workers in the terms and the tensors, in one reduction."""
        if self._group.size == 1:
            return terms, tensors
        softmax, *sums = self._group.all_reduce([terms['softmax_loss']] + tensors)
        whole = {name: terms[name] for name in terms if name != 'loss'}
        whole['softmax_loss'] = softmax
        if 'weight_decay_loss' in terms:  # the same on all workers
            whole['weight_decay_loss'] *= self._group.size
        return self._with_sum(whole), sums
