"""One training step as operations of the graph: forward pass, objective, gradients, updates.

The order inside a step matters: the forward pass, the losses and the gradients read the weights and
centers of before the step; then, in the same `session.run`, the optimizer updates the weights and
the center rule updates the centers. After an overflow under loss scaling neither is updated: an
infinite embedding would make its center infinite for good.

With several workers each one runs the network on its part of the batch. Embeddings and labels are
gathered, and every worker updates the centers with the whole batch. The terms, the accuracy and the
gradients are partial sums, which are summed over the workers once.
"""

from __future__ import annotations

import functools
from typing import Any, Callable

from gitloss import bfloat16, convolution, data, layers, losses
from gitloss.backend import Tensor, keras, tf
from gitloss.centers import CenterTable
from gitloss.gradients import Observer
from gitloss.heads import Classifier
from gitloss.sharding import ShardedClassifier
from trainers.devices import Device
from trainers.engine.objective import Objective
from trainers.engine.term_gradients import gradient_products
from trainers.options import Options
from trainers.workers.group import OneWorker


class Step:
    """Builds a training step of some of the variables.

    Args:
      model, classifier, table: what the step trains.
      objective: the terms of the loss.
      options, device, group: of the run.
      batch: this worker's part of the batch: images float32, labels.
      optimizer: updates the variables. With loss scaling it may skip an update.
      loss_scaled: whether it does.
      variables: the variables to train. Layers whose `trainable` is False are in inference mode.

    Attributes:
      train_op: runs the step.
      steps_done: the global step after it. An overflow makes it no step, a sunk loop several steps.
      fetches: {name: scalar}, the values to log.
      embeddings: of the global batch, float32 [batch, dim].
      gradient_products: of the terms, over the global batch, float32 [3, 3], see the function; None
        if no variable before the embeddings is trained.
      updated: the variables that the step updates, without the centers.
    """

    def __init__(
        self,
        model: keras.Model,
        classifier: Classifier | ShardedClassifier,
        table: CenterTable,
        objective: Objective,
        options: Options,
        device: Device,
        group: OneWorker,
        batch: tuple[Tensor, Tensor],
        optimizer: Any,
        loss_scaled: bool,
        variables: list[Tensor],
    ) -> None:
        self._model, self._table, self._options, self._device = model, table, options, device
        self._group, self._loss_scaled = group, loss_scaled
        self._turns = None if loss_scaled else getattr(classifier, 'update_in_turn', None)
        self._classifier, self._global_step = classifier, tf.train.get_global_step()
        (images, labels), step = batch, self._global_step.read_value()
        self._embeddings = embeddings = self._embeddings_of(images)
        self.embeddings, all_labels = group.all_gather(embeddings), group.all_gather(labels)
        own_centers, self._weights = table.rows(all_labels), objective.weights(step)
        with classifier.observer.on():
            softmax, predictions = objective.softmax(embeddings, labels, all_labels, step)
        decay = objective.decay(layers.decayed(variables), model.get_losses_for(None))
        terms = objective.terms(softmax, embeddings, all_labels, own_centers, self._weights, decay)
        with tf.name_scope('accuracy'):
            accuracy = objective.part_of_mean(tf.cast(tf.equal(predictions, labels), tf.float32))
        gradients, terms, accuracy = self._gradients(
            optimizer, variables, objective, terms, accuracy
        )
        self.train_op, drift = self._updates(
            optimizer, gradients, all_labels, own_centers, list(terms.values())
        )
        with tf.control_dependencies([self.train_op]):
            self.steps_done = self._global_step.read_value()
        self.fetches = dict(terms, accuracy=accuracy, center_drift=drift)
        with tf.name_scope('git_floor'):
            self.fetches['git_floor'] = losses.git_floor(all_labels, options.git_loss_form)
        self.updated = variables + [variable for variable, _ in self._moving_averages]

    def _embeddings_of(self, images: Tensor) -> Tensor:
        """The network in its training phase. Keeps the updates of moving averages for `_move`."""
        group, size = self._group, self._options.batch_size
        is_global = group.size > 1 and self._options.norm_statistics == 'global'
        phase = layers.Phase(
            self._options.seed,
            self._global_step.read_value(),
            data.part_of(size, group.rank, group.size),
            size,
            functools.partial(group.all_gather, sum_gradients=True) if is_global else None,
            on_cpu=self._device.name == 'cpu',
        )
        layers.enter(self._model, phase)
        in_bfloat16 = self._device.network_dtype == 'bfloat16'
        gradients = bfloat16.OVERRIDES if in_bfloat16 else convolution.overrides(self._device.name)
        with tf.get_default_graph().gradient_override_map(gradients):
            embeddings = self._model(images, training=True)
        self._moving_averages = phase.moves
        # Local statistics differ; their mean keeps the replicas equal.
        if group.size > 1 and not is_global and phase.moves:
            variables, values = zip(*phase.moves)
            sums = group.all_reduce(list(values))
            self._moving_averages = [(v, total / group.size) for v, total in zip(variables, sums)]
        return embeddings

    def _gradients(
        self,
        optimizer: Any,
        variables: list[Tensor],
        objective: Objective,
        terms: dict[str, Tensor],
        accuracy: Tensor,
    ) -> tuple[list, dict[str, Tensor], Tensor]:
        """([(gradient, variable)], terms, accuracy) of the global batch.

        The gradients of this worker's shards are whole. If one of them is not finite, loss scaling
        skips the update on all workers, because NaN is added to what they sum.
        """
        # GATE_OP, the default, would make the update of a shard wait for the gradients of all.
        gate = tf.train.Optimizer.GATE_NONE if self._turns else tf.train.Optimizer.GATE_OP
        loss, scale = terms['loss'], Observer()
        with scale.on():
            observed = scale(loss) if self._loss_scaled else loss
        pairs = optimizer.compute_gradients(observed, variables, gate_gradients=gate)
        parts = [accuracy]
        if {one.op.name for one in variables} & {one.op.name for one in self._model.weights}:
            of_loss = scale.gradient(loss) if self._loss_scaled else None
            parts.append(
                gradient_products(self._classifier.observer, terms, self._embeddings, of_loss)
            )
        names = {variable.op.name for variable in getattr(self._classifier, 'shards', [])}
        own = [pair for pair in pairs if pair[1].op.name in names]
        shared = [pair for pair in pairs if pair[1].op.name not in names]
        if own and self._loss_scaled and self._group.size > 1:
            values = [getattr(gradient, 'values', gradient) for gradient, _ in own]
            finite = [tf.reduce_all(tf.is_finite(value)) for value in values]
            # Not 0 * value: TensorFlow 1.15 takes that for 0.
            zero = tf.where_v2(tf.reduce_all(finite), 0.0, float('nan'))
            shared = [(gradient + zero, variable) for gradient, variable in shared]
        tensors = [*parts, *(gradient for gradient, _ in shared)]
        terms, sums = objective.reduced(terms, tensors, self._weights)
        self.gradient_products = sums[1] if len(parts) > 1 else None
        summed = zip(sums[len(parts) :], [pair[1] for pair in shared])
        return [*summed, *own], terms, sums[0]

    def _move(self, all_labels: Tensor, own_centers: Tensor) -> Tensor:
        """Updates the variables without gradients: centers, moving averages of normalization."""
        moves = [tf.assign(variable, value) for variable, value in self._moving_averages]
        return tf.group(self._table.update(self.embeddings, all_labels, own_centers), *moves)

    def _updates(
        self,
        optimizer: Any,
        gradients: list,
        all_labels: Tensor,
        before: Tensor,
        terms: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """(the op that updates weights and centers, the mean move of the batch's centers). The
        samples' own centers are those of `before`.
        """
        averages = [value for _, value in self._moving_averages]
        reads = [before] + terms + [gradient for gradient, _ in gradients] + averages
        with tf.name_scope('move_centers') as scope:
            move = functools.partial(self._move, all_labels, before)
        if self._loss_scaled:
            update, move_centers = self._guarded_updates(optimizer, gradients, move, reads)
        else:
            update = optimizer.apply_gradients(gradients, self._global_step)
            if self._turns:
                self._turns(gradients)
            with tf.name_scope(scope), tf.control_dependencies(reads):
                move_centers = move()
        with tf.name_scope(scope):
            with tf.control_dependencies([move_centers]):
                after = self._table.rows_after(before, self.embeddings, all_labels)
            drift = losses.mean_drift(before, after, all_labels)
        return tf.group(update, move_centers), drift

    def _guarded_updates(
        self,
        optimizer: Any,
        gradients: list,
        move: Callable[[], Tensor],
        reads: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """(update of the weights, update of the centers): after an overflow neither has an effect.

        Only the global step tells whether an optimizer with loss scaling skipped its update.
        """
        with tf.control_dependencies(reads):
            # `+ 1` forces a copy: in TF 1.15 a bare read may alias the variable and see the update
            following = self._global_step.read_value() + 1
        with tf.control_dependencies([following]):
            update = optimizer.apply_gradients(gradients, self._global_step)
        with tf.control_dependencies([update]):
            is_done = tf.equal(self._global_step.read_value(), following)
        return update, tf.cond(is_done, move, tf.no_op)
