"""The trainer: build, initialise, loop, and nothing that a callback can do.

Order inside a step, written down because everything hangs on it: forward pass, losses and gradients read weights and centers as they
were before the step; then, in the same `session.run`, the optimizer moves the weights and the center rule the centers.
"""
from __future__ import annotations

import json
import os
import time

import numpy as np

from callbacks.base import CallbackList, Handle, log
from gitloss import data, losses
from gitloss import model as models
from gitloss.backend import tf
from trainers import checkpoints

_LOSSES = ('loss', 'softmax_loss', 'center_loss', 'git_loss')


class TrainingError(RuntimeError):
    """The training cannot go on, in one line."""


def move_aside(run_dir):
    """Renames an earlier run's folder to the first free `<run_dir>.<n>`; an empty or absent one is left alone."""
    if not os.path.isdir(run_dir) or not os.listdir(run_dir):
        return
    number = 1
    while os.path.exists('%s.%d' % (run_dir, number)):
        number += 1
    os.rename(run_dir, '%s.%d' % (run_dir, number))
    log.info('an earlier run was moved to %s.%d', run_dir, number)


class Trainer(Handle):
    """Trains a model on a data set; what happens alongside is the callbacks' business.

    Args:
      options: a trainers.options.Options.
      dataset: a gitloss.data.Dataset.
      callbacks: a list of callbacks.
      device: a trainers.devices.Device.
      versions: facts for the checkpoints' manifests.
    """

    def __init__(self, options, dataset, callbacks, device, versions=None):
        self.options = options.as_dict()
        self.run_dir, self.run_name = options.run_dir, os.path.basename(options.run_dir)
        self.steps, self.every = options.steps, min(options.update_centers, options.steps)
        self.batch_size, self.num_classes = options.batch_size, dataset.num_classes
        self._options, self._dataset, self._device = options, dataset, device
        self._versions = versions or {}
        self._callbacks = CallbackList(callbacks)
        self._graph, self._session = tf.Graph(), None
        self._store = checkpoints.CheckpointStore(os.path.join(self.run_dir, 'ckpt'), options.keep_checkpoints)
        self._step, self._epoch, self._stop_reason = 0, 0, None
        self._totals = {}
        self._train_seconds, self._timed_steps = 0.0, 0

    # --- the three phases ---------------------------------------------------------------------------------------------------

    def fit(self):
        """Runs the whole training. Returns the logs of the last measurement, with what the callbacks added at the end.

        Raises:
          ValueError: the options do not fit the data or the model; nothing has been written.
          TrainingError: the training cannot go on; what had been saved stays as it is.
        """
        with self._graph.as_default():
            try:
                self._build()
                self._initialise()
                logs = self._loop()
                self._callbacks.end(logs)
            finally:
                self._callbacks.close()
                if self._session is not None:
                    self._session.close()
        return logs

    def evaluate(self, checkpoint, measure):
        """Restores the weights of a checkpoint, whichever TensorFlow wrote it, and returns `measure(self)`."""
        with self._graph.as_default():
            self._build_model()
            self._build_evaluation()
            saver = tf.train.Saver(self._model.weights + self._center_layer.weights)
            self._graph.finalize()
            with tf.Session(graph=self._graph, config=self._device.config) as self._session:
                checkpoints.restore(self._session, saver, checkpoint)
                return measure(self)

    @property
    def failures(self):
        """Callbacks that failed while finishing, a line each."""
        return self._callbacks.failures

    def _build(self):
        self._build_model()
        self._build_training()
        self._build_evaluation()
        self._callbacks.build(self)
        self._saver = tf.train.Saver(tf.global_variables(), max_to_keep=None)
        self._initial = tf.global_variables_initializer()
        self._graph.finalize()

    def _build_model(self):
        options, dataset = self._options, self._dataset
        self._model = models.build(options.model, dataset.train.images.shape[1:], dataset.num_classes, options.embedding_dim,
                                   options.batch_size, options.seed, dataset.mean_image)
        self._center_layer = losses.CenterLoss(dataset.num_classes, form=options.git_loss_form, alpha=options.alpha, name='center_loss')
        self._git_layer = losses.GitLoss(dataset.num_classes, form=options.git_loss_form, share=self._center_layer, name='git_loss')

    def _objective(self, embeddings, logits, labels):
        """L = L_S + lambda_c L_C + lambda_g L_G and its parts, by name."""
        softmax = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        center, git = self._center_layer([embeddings, labels]), self._git_layer([embeddings, labels])
        total = softmax + self._options.lambda_c * center + self._options.lambda_g * git
        return dict(zip(_LOSSES, (total, softmax, center, git)))

    def _build_training(self):
        stream = data.BatchStream(self._dataset.train, self.batch_size, self._options.seed)
        self._first_step = tf.placeholder(tf.int64, [], name='first_step')
        self._iterator = tf.data.make_initializable_iterator(stream.dataset(self._first_step))
        images, labels = self._iterator.get_next()
        embeddings, logits = self._model(tf.cast(images, tf.float32))
        self._step_embeddings = embeddings
        terms = self._objective(embeddings, logits, labels)
        accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1, output_type=tf.int32), labels), tf.float32))
        self._global_step = tf.train.get_or_create_global_step()
        optimizer = tf.train.AdamOptimizer(self._options.learning_rate)
        gradients = optimizer.compute_gradients(terms['loss'], self._model.trainable_weights)
        with tf.control_dependencies([terms['loss']] + [gradient for gradient, _ in gradients]):
            move_centers = self._center_layer.update(embeddings, labels)
        self._train_op = tf.group(optimizer.apply_gradients(gradients, self._global_step), move_centers)
        self._step_fetches = dict(terms, accuracy=accuracy)

    def _build_evaluation(self):
        embeddings, logits = self._model.outputs
        self._eval_labels = tf.placeholder(tf.int32, [self.batch_size], name='input_labels')
        self._eval_fetches = {'embeddings': embeddings, 'predictions': tf.argmax(logits, 1, output_type=tf.int32)}
        self._eval_losses = self._objective(embeddings, logits, self._eval_labels)

    def _initialise(self):
        self._open_run_dir()
        self._session = tf.Session(graph=self._graph, config=self._device.config)
        self._session.run(self._initial)
        # Not in one run with the variables: the NPU adapter then leaves them at zero.
        self._session.run(self._iterator.initializer, {self._first_step: self._step})

    def _open_run_dir(self):
        try:
            move_aside(self.run_dir)
            os.makedirs(self.run_dir, exist_ok=True)
            with open(os.path.join(self.run_dir, 'options.json'), 'w', encoding='utf-8') as file:
                json.dump(self.options, file, indent=1)
        except OSError as error:
            raise ValueError('--exp_save_dir: expected a folder that can be written. Received: %s' % error)

    def _loop(self):
        logs = {}
        self._callbacks.run('on_train_begin', logs)
        while self._step < self.steps and not self._stop_reason:
            if self._step % self.every == 0:
                self._callbacks.run('on_epoch_begin', self._epoch + 1, {})
            self._train_step()
            if self._step % self.every == 0 or self._step == self.steps or self._stop_reason:
                logs = self._measure()
        return logs

    # --- inside the loop ----------------------------------------------------------------------------------------------------

    def _train_step(self):
        batch = self._step + 1
        self._callbacks.run('on_train_batch_begin', batch, {})
        fetches = dict(self._callbacks.fetches(batch), **self._step_fetches)
        start = time.perf_counter()
        try:
            _, values = self._session.run([self._train_op, fetches])
        except tf.errors.InvalidArgumentError as error:
            raise TrainingError('step %d: %s' % (batch, error.message.splitlines()[0]))
        seconds = time.perf_counter() - start
        if self._step:  # the first step of a process also compiles and warms up
            self._train_seconds += seconds
            self._timed_steps += 1
        self._step = batch
        logs = {name: value.item() if np.ndim(value) == 0 else value for name, value in values.items()}
        logs['images_per_sec'] = self.batch_size / seconds
        for name in ('loss', 'accuracy'):
            self._totals[name] = self._totals.get(name, 0.0) + logs[name]
        self._totals['steps'] = self._totals.get('steps', 0) + 1
        self._totals['seconds'] = self._totals.get('seconds', 0.0) + seconds
        self._callbacks.run('on_train_batch_end', batch, logs)

    def _measure(self):
        """Closes the stretch since the last measurement: its means, and whatever the callbacks measure."""
        totals, self._totals = self._totals, {}
        self._epoch += 1
        logs = {'step': self._step, 'train_loss': totals['loss'] / totals['steps'], 'train_acc': totals['accuracy'] / totals['steps'],
                'images_per_sec': self.batch_size * totals['steps'] / totals['seconds'], 'seconds': totals['seconds']}
        self._callbacks.run('on_epoch_end', self._epoch, logs)
        return logs

    # --- what callbacks may ask ---------------------------------------------------------------------------------------------

    @property
    def step(self):
        return self._step

    def sweep(self, split, with_losses=False):
        fetches = dict(self._eval_fetches, **(self._eval_losses if with_losses else {}))
        for images, labels, count in data.padded_batches(split, self.batch_size):
            values = self._session.run(fetches, {self._model.input: images, self._eval_labels: labels})
            batch_losses = {name: values[name].item() for name in _LOSSES if name in values}
            yield values['embeddings'][:count], values['predictions'][:count], labels[:count], batch_losses

    def centers(self):
        return self._session.run(self._center_layer.centers)

    def save(self, metrics):
        contents = {'options': self.options, 'versions': self._versions, 'metrics': metrics, 'epoch': self._epoch,
                    'dataset': {'name': self._dataset.name, 'num_classes': self.num_classes,
                                'image_shape': list(self._dataset.train.images.shape[1:])},
                    'callbacks': self._callbacks.state()}
        return self._store.save(self._session, self._saver, self._step, contents)

    def throughput(self):
        seconds = self._train_seconds / max(self._timed_steps, 1)
        return {'images_per_sec': self.batch_size / seconds if seconds else None, 'sec_per_step': seconds}

    def stop(self, reason):
        log.info('stopping after step %d: %s', self._step, reason)
        self._stop_reason = reason
