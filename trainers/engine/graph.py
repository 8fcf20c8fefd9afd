"""The graph of a run: model, objective, training step and evaluation, as named tensors and
operations. No session, no loop.

Name scopes are there for whoever looks at the graph in TensorBoard. None is open where variables
are made: checkpoints know those by name.

Order inside a step, written down because everything hangs on it: forward pass, losses and gradients
read weights and centers as they were before the step; then, in the same `session.run`, the
optimizer moves the weights and the center rule the centers. Under loss scaling an overflow leaves
out both: an embedding that is infinite would make its center infinite for good.

With several workers each runs the network over its part of the batch. Embeddings and labels are
gathered; every worker moves the centers over the whole batch. The softmax term, the accuracy and
the gradients are parts that are summed once.
"""

from __future__ import annotations

from gitloss import convolution, data, heads, layers, losses
from gitloss import model as models
from gitloss.backbones import backbone
from gitloss.backend import Tensor, keras, tf
from gitloss.centers import CenterTable
from gitloss.data import DataSpec
from trainers import devices
from trainers.devices import npu
from trainers.engine import schedules
from trainers.engine.freezing import trainable
from trainers.engine.objective import Objective
from trainers.options import Options
from trainers.workers.group import OneWorker

_OPTIMIZERS = {
    'adam': lambda rate, options: tf.train.AdamOptimizer(rate, epsilon=options.adam_epsilon),
    'sgd': lambda rate, options: tf.train.GradientDescentOptimizer(rate),
    'momentum': lambda rate, options: tf.train.MomentumOptimizer(rate, options.momentum),
    'adagrad': lambda rate, options: tf.train.AdagradOptimizer(rate),
}


def network(
    options: Options, spec: DataSpec, batch_size: int
) -> tuple[keras.Model, heads.Classifier]:
    """The embedding model, for `batch_size` images, and the classifier that the options describe.

    Raises:
      ValueError: an unknown network or head, or images too small for the network.
    """
    margin = None if options.margin < 0 else options.margin
    head = heads.head(options.head, margin, options.scale or None)
    model = models.build(spec, options.model, options.embedding_dim, batch_size, options.seed)
    slope = backbone(options.model).slope
    classifier = heads.Classifier(head, spec.num_classes, slope, options.seed)
    classifier.build(options.embedding_dim)
    return model, classifier


class TrainingGraph:
    """Builds into the current graph, for a devices.Device, a network for data of a DataSpec.

    `source`: the training images; None leaves out all that an evaluation does not need.
    """

    def __init__(self, options, spec, device, group=None, source=None):
        self._options, self._device, self._group = options, device, group or OneWorker()
        self._rows = options.batch_size // self._group.size
        self.model, self.classifier = network(options, spec, self._rows)
        layers.refuse_foreign_modes(self.model)
        self.center_table = CenterTable(
            spec.num_classes, options.alpha, options.distance, name='center_loss'
        )
        self.center_table.build([None, options.embedding_dim])
        # no float64 and no loop on an NPU
        method = 'unrolled' if device.name == 'npu' else None
        self._objective = Objective(
            options, self.classifier, self.center_table, self._group, method
        )
        if source is not None:
            self._build_training(source)
        self._build_evaluation()

    @property
    def weights(self) -> list[Tensor]:
        """Variables of the network: all that an evaluation needs of a checkpoint."""
        return self.model.weights + self.classifier.weights + self.center_table.weights

    def _batches(self, source):
        """This worker's part of a batch: images float32, labels."""
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

    def _build_training(self, source):
        options = self._options
        images, labels = self._batches(source)
        self.global_step = tf.train.get_or_create_global_step()
        variables = trainable(self.model, self.classifier.weights, options.freeze)
        embeddings = self._embeddings_of(images)
        logits = self.classifier.logits(embeddings)
        self.embeddings = self._group.all_gather(embeddings)
        all_labels = self._group.all_gather(labels)
        decay = self._objective.decay(layers.decayed(variables), self.model.get_losses_for(None))
        terms = self._objective.terms(logits, labels, self.embeddings, all_labels, decay)
        with tf.name_scope('accuracy'):
            accuracy = self._objective.part_of_mean(
                tf.cast(tf.equal(tf.argmax(logits, 1, output_type=tf.int32), labels), tf.float32)
            )
        optimizer = self._optimizer()
        gradients = optimizer.compute_gradients(terms['loss'], variables)
        terms, sums = self._objective.reduced(
            terms, [accuracy] + [gradient for gradient, _ in gradients]
        )
        accuracy, gradients = sums[0], list(zip(sums[1:], variables))
        self.train_op, drift = self._updates(optimizer, gradients, all_labels, list(terms.values()))
        with tf.control_dependencies([self.train_op]):
            # an overflow skips a step, a sunk loop makes several
            self.steps_done = self.global_step.read_value()
        self.load_loop = None
        if options.iterations_per_loop > 1:
            self.train_op, self.load_loop = npu.sunk(self.train_op, options.iterations_per_loop)
        with tf.name_scope('git_floor'):
            floor = losses.git_floor(all_labels, options.git_loss_form)
        self.step_fetches = dict(terms, accuracy=accuracy, center_drift=drift, git_floor=floor)
        moved = [variable for variable, _ in self._moving_averages]
        with tf.name_scope('weights_are_finite'):
            self.weights_are_finite = tf.reduce_all(
                [tf.reduce_all(tf.is_finite(variable)) for variable in variables + moved]
            )

    def _embeddings_of(self, images):
        """The network in its training phase. What it moves is kept for `_move`."""
        group, size = self._group, self._options.batch_size
        in_common = group.size > 1 and self._options.norm_statistics == 'global'
        phase = layers.Phase(
            self._options.seed,
            self.global_step.read_value(),
            data.part_of(size, group.rank, group.size),
            size,
            group.gather_statistics if in_common else None,
        )
        layers.enter(self.model, phase)
        with tf.get_default_graph().gradient_override_map(convolution.overrides(self._device.name)):
            embeddings = self.model(images, training=True)
        self._moving_averages = phase.moves
        if group.size > 1 and not in_common and phase.moves:  # replicas stay equal all the same
            variables, values = zip(*phase.moves)
            sums = group.all_reduce(list(values))
            self._moving_averages = [(v, total / group.size) for v, total in zip(variables, sums)]
        return embeddings

    def _move(self, all_labels):
        """Moves what no gradient moves: the centers, and the averages of the normalisation."""
        moves = [tf.assign(variable, value) for variable, value in self._moving_averages]
        return tf.group(self.center_table.update(self.embeddings, all_labels), *moves)

    def _optimizer(self):
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

    def _updates(self, optimizer, gradients, all_labels, terms):
        """(the op that moves weights and centers, how far it moves the centers of the batch)."""
        with tf.name_scope('move_centers') as scope:
            before = self.center_table.rows(all_labels)
        reads = [before] + terms + [gradient for gradient, _ in gradients]
        reads += [value for _, value in self._moving_averages]
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

    def _guarded_updates(self, optimizer, gradients, all_labels, reads):
        """(weights' update, centers' update): both or, after an overflow, none. Only the global
        step tells whether an optimizer with loss scaling has left out its update.
        """
        with tf.control_dependencies(reads):
            # `+ 1` forces a copy: in TF 1.15 a bare read may alias the variable and see the update
            following = self.global_step.read_value() + 1
        with tf.control_dependencies([following]):
            update = optimizer.apply_gradients(gradients, self.global_step)
        with tf.control_dependencies([update]):
            is_done = tf.equal(self.global_step.read_value(), following)
        return update, tf.cond(is_done, lambda: self._move(all_labels), tf.no_op)

    def _build_evaluation(self):
        self.eval_images = tf.placeholder(tf.uint8, self.model.input.shape, name='images')
        embeddings = self.model(tf.cast(self.eval_images, tf.float32))
        self.eval_labels = tf.placeholder(tf.int32, [self._rows], name='input_labels')
        logits = self.classifier.logits(embeddings)
        all_embeddings = self._group.all_gather(embeddings)
        predictions = tf.argmax(logits, 1, output_type=tf.int32)
        self.eval_fetches = {
            'embeddings': all_embeddings,
            'predictions': self._group.all_gather(predictions),
        }
        all_labels = self._group.all_gather(self.eval_labels)
        terms = self._objective.terms(logits, self.eval_labels, all_embeddings, all_labels)
        self.eval_losses, _ = self._objective.reduced(terms, [])
        centers = self.center_table.centers
        self.new_centers = tf.placeholder(tf.float32, centers.shape, name='new_centers')
        self.set_centers = tf.assign(centers, self.new_centers)
