"""The graph of a run: model, objective, training step and evaluation, as named tensors and
operations. No session, no loop.

Name scopes are there for whoever looks at the graph in TensorBoard. None is open where variables
are made: checkpoints know those by name.

Order inside a step, written down because everything hangs on it: forward pass, losses and gradients
read weights and centers as they were before the step; then, in the same `session.run`, the
optimizer moves the weights and the center rule the centers. Under loss scaling
an overflow leaves out both: an embedding that is infinite would make its center infinite for good.

With several workers each runs the network over its part of the batch. Embeddings and labels are
gathered, so that every worker computes the center and git terms and moves the centers over the
whole batch; the softmax term, the accuracy and the gradients are parts that are summed once.
"""

from __future__ import annotations

import fnmatch

from gitloss import convolution, data, heads, losses
from gitloss import model as models
from gitloss.backend import tf
from trainers import devices
from trainers.devices import npu
from trainers.engine import schedules
from trainers.workers.group import OneWorker

LOSSES = ('loss', 'softmax_loss', 'center_loss', 'git_loss')
# --loss: the classifier, and whether the center and the git term count.
_OBJECTIVES = {
    'git': ('softmax', 1, 1),
    'center': ('softmax', 1, 0),
    'softmax': ('softmax', 0, 0),
    'arcface': ('arcface', 0, 0),
    'cosface': ('cosface', 0, 0),
}
_OPTIMIZERS = {
    'adam': lambda rate, options: tf.train.AdamOptimizer(rate, epsilon=options.adam_epsilon),
    'sgd': lambda rate, options: tf.train.GradientDescentOptimizer(rate),
    'momentum': lambda rate, options: tf.train.MomentumOptimizer(rate, options.momentum),
    'adagrad': lambda rate, options: tf.train.AdagradOptimizer(rate),
}


def matching(patterns, names):
    """Names that begin with one of the comma-separated patterns (shell wildcards allowed).

    Raises:
      ValueError: a pattern matches nothing.
    """
    chosen = set()
    for pattern in (part.strip() for part in patterns.split(',') if part.strip()):
        found = fnmatch.filter(names, pattern + '*')
        if not found:
            raise ValueError(
                '--freeze: expected patterns of variable names, {}. Received: {!r}, which matches none'.format(
                    ', '.join(sorted({name.split('/')[0] for name in names})), pattern
                )
            )
        chosen.update(found)
    return chosen


def head_of(options):
    """The heads.Margin that --loss, --margin and --scale stand for."""
    return heads.head(
        _OBJECTIVES[options.loss][0],
        None if options.margin < 0 else options.margin,
        options.scale or None,
    )


def name_of(variable):
    return variable.name.split(':')[0]


class TrainingGraph:
    """Builds into the current graph, for a devices.Device, a network for data of a DataSpec.

    `source`: the training images; None leaves out all that an evaluation does not need.
    """

    def __init__(self, options, spec, device, group=None, source=None):
        self._options, self._device, self._group = options, device, group or OneWorker()
        self._rows = options.batch_size // self._group.size
        self._head = head_of(options)
        self.model = models.build(
            options.model,
            spec.image_shape,
            spec.num_classes,
            options.embedding_dim,
            self._rows,
            options.seed,
            spec.preprocessing.mean,
            self._head,
        )
        shared = {'form': options.git_loss_form, 'distance': options.distance}
        self.center_layer = losses.CenterLoss(
            spec.num_classes, alpha=options.alpha, name='center_loss', **shared
        )
        self._git_layer = losses.GitLoss(
            spec.num_classes,
            share=self.center_layer,
            name='git_loss',
            **shared,
            method='unrolled' if device.name == 'npu' else None,
        )  # no float64, no loop
        if source is not None:
            self._build_training(source)
        self._build_evaluation()

    def _objective(self, logits, labels, all_embeddings, all_labels):
        """The parts of the objective and their total by name; of the softmax term only what this
        worker adds to it.
        """
        with tf.name_scope('softmax_loss'):
            logits = heads.training_logits(self._head, logits, labels)
            softmax = self._share(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
        center, git = (
            self.center_layer([all_embeddings, all_labels]),
            self._git_layer([all_embeddings, all_labels]),
        )
        return self._terms(softmax, center, git)

    def _share(self, values):
        """What this worker's values add to their mean over all workers."""
        mean = tf.reduce_mean(values)
        return mean if self._group.size == 1 else mean / self._group.size

    def _terms(self, softmax, center, git):
        """L = L_S + lambda_c L_C + lambda_g L_G and its parts, by name. A term that does not count
        is computed to be logged.
        """
        _, counts_center, counts_git = _OBJECTIVES[self._options.loss]
        total = softmax
        with tf.name_scope('loss'):
            for counts, weight, term in (
                (counts_center, self._options.lambda_c, center),
                (counts_git, self._options.lambda_g, git),
            ):
                if counts and weight:
                    total += weight * term
        return dict(zip(LOSSES, (total, softmax, center, git)))

    def _summed(self, terms, tensors):
        """The terms and the tensors with the parts of all workers put together, in one
        reduction.
        """
        if self._group.size == 1:
            return terms, tensors
        softmax, *sums = self._group.all_reduce([terms['softmax_loss']] + tensors)
        return self._terms(softmax, terms['center_loss'], terms['git_loss']), sums

    def _trainable(self):
        weights = {name_of(variable): variable for variable in self.model.trainable_weights}
        frozen = matching(self._options.freeze, sorted(weights))
        if len(frozen) == len(weights):
            raise ValueError(
                f'--freeze: expected to leave a variable to train. Received: {self._options.freeze!r}, which matches all'
            )
        return [variable for name, variable in weights.items() if name not in frozen]

    def _build_training(self, source):
        options = self._options
        stream = data.BatchStream(
            source, options.batch_size, options.seed, self._group.rank, self._group.size
        )
        self.first_step = tf.placeholder(tf.int64, [], name='first_step')
        with tf.name_scope('batches'):
            self.iterator = tf.data.make_initializable_iterator(stream.dataset(self.first_step))
            images, labels = self.iterator.get_next()
            images = tf.cast(images, tf.float32)
        with tf.get_default_graph().gradient_override_map(convolution.overrides(self._device.name)):
            embeddings, logits = self.model(images)
        self.embeddings, all_labels = (
            self._group.all_gather(embeddings),
            self._group.all_gather(labels),
        )
        terms = self._objective(logits, labels, self.embeddings, all_labels)
        with tf.name_scope('accuracy'):
            accuracy = self._share(
                tf.cast(tf.equal(tf.argmax(logits, 1, output_type=tf.int32), labels), tf.float32)
            )
        optimizer, trainable = self._optimizer(), self._trainable()
        gradients = optimizer.compute_gradients(terms['loss'], trainable)
        terms, sums = self._summed(terms, [accuracy] + [gradient for gradient, _ in gradients])
        accuracy, gradients = sums[0], list(zip(sums[1:], trainable))
        self.train_op, drift = self._updates(optimizer, gradients, all_labels, list(terms.values()))
        with tf.control_dependencies([self.train_op]):
            self.steps_done = (
                self.global_step.read_value()
            )  # an overflow skips a step, a sunk loop makes several
        self.load_loop = None
        if options.iterations_per_loop > 1:
            self.train_op, self.load_loop = npu.sunk(self.train_op, options.iterations_per_loop)
        with tf.name_scope('git_floor'):
            floor = losses.git_floor(all_labels, options.git_loss_form)
        self.step_fetches = dict(terms, accuracy=accuracy, center_drift=drift, git_floor=floor)
        with tf.name_scope('weights_are_finite'):
            self.weights_are_finite = tf.reduce_all(
                [tf.reduce_all(tf.is_finite(variable)) for variable in trainable]
            )

    def _optimizer(self):
        options = self._options
        self.global_step = tf.train.get_or_create_global_step()
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
            before = tf.gather(self.center_layer.centers, all_labels)
        reads = [before] + terms + [gradient for gradient, _ in gradients]
        if self.loss_scaled:
            update, move_centers = self._guarded_updates(optimizer, gradients, all_labels, reads)
        else:
            update = optimizer.apply_gradients(gradients, self.global_step)
            with tf.name_scope(scope), tf.control_dependencies(reads):
                move_centers = self.center_layer.update(self.embeddings, all_labels)
        with tf.name_scope(scope):
            with tf.control_dependencies([move_centers]):
                after = tf.gather(self.center_layer.centers, all_labels)
            drift = losses.mean_drift(before, after, all_labels)
        return tf.group(update, move_centers), drift

    def _guarded_updates(self, optimizer, gradients, all_labels, reads):
        """(weights' update, centers' update): both or, after an overflow, none. Whichever optimizer
        scales the loss, that it has left out its update shows in the global step alone."""
        with tf.control_dependencies(reads):
            following = (
                self.global_step.read_value() + 1
            )  # a sum: of a step that is only read, TensorFlow 1.15 would see the update
        with tf.control_dependencies([following]):
            update = optimizer.apply_gradients(gradients, self.global_step)
        with tf.control_dependencies([update]):
            is_done = tf.equal(self.global_step.read_value(), following)
        return update, tf.cond(
            is_done, lambda: self.center_layer.update(self.embeddings, all_labels), tf.no_op
        )

    def _build_evaluation(self):
        self.eval_images = tf.placeholder(tf.uint8, self.model.input.shape, name='images')
        embeddings, logits = self.model(tf.cast(self.eval_images, tf.float32))
        self.eval_labels = tf.placeholder(tf.int32, [self._rows], name='input_labels')
        all_embeddings, predictions = (
            self._group.all_gather(embeddings),
            tf.argmax(logits, 1, output_type=tf.int32),
        )
        self.eval_fetches = {
            'embeddings': all_embeddings,
            'predictions': self._group.all_gather(predictions),
        }
        terms = self._objective(
            logits, self.eval_labels, all_embeddings, self._group.all_gather(self.eval_labels)
        )
        self.eval_losses, _ = self._summed(terms, [])
        self.new_centers = tf.placeholder(
            tf.float32, self.center_layer.centers.shape, name='new_centers'
        )
        self.set_centers = tf.assign(self.center_layer.centers, self.new_centers)
