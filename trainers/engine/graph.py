"""The graph of a run: model, objective, training step and evaluation, as named tensors and
operations. No session, no loop.

Name scopes serve readers of the graph in TensorBoard. None is open where variables are created,
because checkpoints identify variables by name.

The order inside a step matters: the forward pass, the losses and the gradients read the weights and
centers of before the step; then, in the same `session.run`, the optimizer updates the weights and
the center rule updates the centers. After an overflow under loss scaling neither is updated: an
infinite embedding would make its center infinite for good.

With several workers each one runs the network on its part of the batch. Embeddings and labels are
gathered, and every worker updates the centers with the whole batch. The softmax term, the accuracy
and the gradients are partial sums, which are summed over the workers once.
"""

from __future__ import annotations

import functools
from typing import Any

from gitloss import convolution, data, layers, losses
from gitloss.backend import Tensor, tf
from gitloss.centers import CenterTable
from gitloss.data import DataSpec, Source
from trainers import devices
from trainers.devices import npu
from trainers.engine import schedules
from trainers.engine.freezing import trainable
from trainers.engine.inference import network
from trainers.engine.objective import Objective
from trainers.options import Options
from trainers.workers.group import OneWorker

_OPTIMIZERS = {
    'adam': lambda rate, options: tf.train.AdamOptimizer(rate, epsilon=options.adam_epsilon),
    'sgd': lambda rate, options: tf.train.GradientDescentOptimizer(rate),
    'momentum': lambda rate, options: tf.train.MomentumOptimizer(rate, options.momentum),
    'adagrad': lambda rate, options: tf.train.AdagradOptimizer(rate),
}


class TrainingGraph:
    """Builds a network, its training step and its evaluation into the current graph.

    Args:
      options: the settings of the model.
      spec: what the network knows of the data.
      device: where the graph runs.
      group: the workers that this process is one of; None: it works alone.
      source: the training images; None: only an evaluation is built.
    """

    def __init__(
        self,
        options: Options,
        spec: DataSpec,
        device: devices.Device,
        group: OneWorker | None = None,
        source: Source | None = None,
    ) -> None:
        self._options, self._device, self._group = options, device, group or OneWorker()
        self._rows = options.batch_size // self._group.size
        self.model, self.classifier = network(options, spec, self._rows)
        layers.refuse_foreign_modes(self.model)
        self.center_table = CenterTable(
            spec.num_classes, options.alpha, options.distance, name='center_loss'
        )
        self.center_table.build([None, options.embedding_dim])
        # The variables that an evaluation needs of a checkpoint.
        self.weights = self.model.weights + self.classifier.weights + self.center_table.weights
        self._objective = Objective(
            options,
            self.classifier,
            self.center_table,
            self._group,
            # An NPU has no float64 and no loops.
            method='unrolled' if device.name == 'npu' else None,
        )
        if source is not None:
            self._build_training(source)
        self._build_evaluation()

    def _batches(self, source: Source) -> tuple[Tensor, Tensor]:
        """This worker's part of a batch: float32 images, labels."""
        stream = data.BatchStream(
            source,
            self._options.batch_size,
            self._options.seed,
            self._group.rank,
            self._group.size,
        )
        self.first_step = tf.placeholder(tf.int64, [], name='first_step')
        with tf.name_scope('batches'):
            self.iterator = tf.data.make_initializable_iterator(stream.dataset(self.first_step))
            images, labels = self.iterator.get_next()
            return tf.cast(images, tf.float32), labels

    def _build_training(self, source: Source) -> None:
        options, objective = self._options, self._objective
        images, labels = self._batches(source)
        self.global_step = tf.train.get_or_create_global_step()
        variables = trainable(self.model, self.classifier.weights, options.freeze)
        embeddings = self._embeddings_of(images)
        logits = self.classifier.logits(embeddings)
        self.embeddings = self._group.all_gather(embeddings)
        all_labels = self._group.all_gather(labels)
        terms = objective.terms(
            logits,
            labels,
            self.embeddings,
            all_labels,
            objective.decay(layers.decayed(variables), self.model.get_losses_for(None)),
        )
        with tf.name_scope('accuracy'):
            is_right = tf.equal(tf.argmax(logits, 1, output_type=tf.int32), labels)
            accuracy = objective.part_of_mean(tf.cast(is_right, tf.float32))
        optimizer = self._optimizer()
        gradients = [pair[0] for pair in optimizer.compute_gradients(terms['loss'], variables)]
        terms, (accuracy, *gradients) = objective.reduced(terms, [accuracy, *gradients])
        self.train_op, drift = self._updates(
            optimizer, list(zip(gradients, variables)), all_labels, list(terms.values())
        )
        with tf.control_dependencies([self.train_op]):
            # An overflow makes it no step, a sunk loop several steps.
            self.steps_done = self.global_step.read_value()
        self.load_loop = None
        if options.iterations_per_loop > 1:
            self.train_op, self.load_loop = npu.sunk(self.train_op, options.iterations_per_loop)
        self.step_fetches = dict(terms, accuracy=accuracy, center_drift=drift)
        with tf.name_scope('git_floor'):
            self.step_fetches['git_floor'] = losses.git_floor(all_labels, options.git_loss_form)
        with tf.name_scope('weights_are_finite'):
            updated = variables + [variable for variable, _ in self._moving_averages]
            self.weights_are_finite = tf.reduce_all(
                [tf.reduce_all(tf.is_finite(variable)) for variable in updated]
            )

    def _embeddings_of(self, images: Tensor) -> Tensor:
        """The network in its training phase. Keeps the updates of moving averages for `_move`."""
        group, size = self._group, self._options.batch_size
        is_global = group.size > 1 and self._options.norm_statistics == 'global'
        phase = layers.Phase(
            self._options.seed,
            self.global_step.read_value(),
            data.part_of(size, group.rank, group.size),
            size,
            functools.partial(group.all_gather, sum_gradients=True) if is_global else None,
            on_cpu=self._device.name == 'cpu' and not self._device.mixed,
        )
        layers.enter(self.model, phase)
        with tf.get_default_graph().gradient_override_map(convolution.overrides(self._device.name)):
            embeddings = self.model(images, training=True)
        self._moving_averages = phase.moves
        # Local statistics differ; their mean keeps the replicas equal.
        if group.size > 1 and not is_global and phase.moves:
            variables, values = zip(*phase.moves)
            sums = group.all_reduce(list(values))
            self._moving_averages = [(v, total / group.size) for v, total in zip(variables, sums)]
        return embeddings

    def _move(self, all_labels: Tensor) -> Tensor:
        """Updates the variables without gradients: centers, moving averages of normalization."""
        moves = [tf.assign(variable, value) for variable, value in self._moving_averages]
        return tf.group(self.center_table.update(self.embeddings, all_labels), *moves)

    def _optimizer(self) -> Any:
        options = self._options
        self.learning_rate = tf.get_variable(
            'learning_rate',
            [],
            initializer=tf.constant_initializer(options.learning_rate),
            trainable=False,
            use_resource=True,
        )
        self.new_learning_rate = tf.placeholder(tf.float32, [], name='new_learning_rate')
        self.set_learning_rate = tf.assign(self.learning_rate, self.new_learning_rate)
        with tf.name_scope('schedule'):
            self.rate_of_step = self.learning_rate * schedules.factor(
                self.global_step,
                options.schedule,
                options.steps,
                options.warmup_steps,
                options.decay_steps,
                options.decay_rate,
            )
        plain = _OPTIMIZERS[options.optimizer](self.rate_of_step, options)
        optimizer = devices.loss_scaled(plain, options, self._device)
        self.loss_scaled = optimizer is not plain
        return optimizer

    def _updates(
        self, optimizer: Any, gradients: list, all_labels: Tensor, terms: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(the op that updates weights and centers, the mean move of the batch's centers)."""
        with tf.name_scope('move_centers') as scope:
            before = self.center_table.rows(all_labels)
        averages = [value for _, value in self._moving_averages]
        reads = [before] + terms + [gradient for gradient, _ in gradients] + averages
        if self.loss_scaled:
            update, move_centers = self._guarded_updates(optimizer, gradients, all_labels, reads)
        else:
            update = optimizer.apply_gradients(gradients, self.global_step)
            with tf.name_scope(scope), tf.control_dependencies(reads):
                move_centers = self._move(all_labels)
        with tf.name_scope(scope):
            with tf.control_dependencies([move_centers]):
                after = self.center_table.rows(all_labels)
            drift = losses.mean_drift(before, after, all_labels)
        return tf.group(update, move_centers), drift

    def _guarded_updates(
        self, optimizer: Any, gradients: list, all_labels: Tensor, reads: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """(update of the weights, update of the centers): after an overflow neither has an effect.

        Only the global step tells whether an optimizer with loss scaling skipped its update.
        """
        with tf.control_dependencies(reads):
            # `+ 1` forces a copy: in TF 1.15 a bare read may alias the variable and see the update
            following = self.global_step.read_value() + 1
        with tf.control_dependencies([following]):
            update = optimizer.apply_gradients(gradients, self.global_step)
        with tf.control_dependencies([update]):
            is_done = tf.equal(self.global_step.read_value(), following)
        return update, tf.cond(is_done, lambda: self._move(all_labels), tf.no_op)

    def _build_evaluation(self) -> None:
        self.eval_images = tf.placeholder(tf.uint8, self.model.input.shape, name='images')
        embeddings = self.model(tf.cast(self.eval_images, tf.float32))
        self.eval_labels = tf.placeholder(tf.int32, [self._rows], name='input_labels')
        logits = self.classifier.logits(embeddings)
        all_embeddings = self._group.all_gather(embeddings)
        self.eval_fetches = {
            'embeddings': all_embeddings,
            'predictions': self._group.all_gather(tf.argmax(logits, 1, output_type=tf.int32)),
        }
        all_labels = self._group.all_gather(self.eval_labels)
        terms = self._objective.terms(logits, self.eval_labels, all_embeddings, all_labels)
        self.eval_losses, _ = self._objective.reduced(terms, [])
        centers = self.center_table.centers
        self.new_centers = tf.placeholder(tf.float32, centers.shape, name='new_centers')
        self.set_centers = tf.assign(centers, self.new_centers)
