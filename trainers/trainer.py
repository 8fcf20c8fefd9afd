"""The trainer: build, initialise, loop, and nothing that a callback can do."""
from __future__ import annotations

import json
import os
import signal
import threading
import time

import numpy as np

from callbacks.base import CallbackList, Diverged, Handle, log
from gitloss import data
from gitloss.backend import tf
from trainers import checkpoints, rundir
from trainers.graph import LOSSES, TrainingGraph, name_of
from trainers.workers import OneWorker

_MOST_OVERFLOWS = 200  # in a row: a scale that halves has long come to 1 by then


class TrainingError(RuntimeError):
    """The training cannot go on, in one line."""


class Interrupted(KeyboardInterrupt):  # no Exception: no callback's failure to be noted and passed over
    """A signal ended the training; a checkpoint of the last whole step was written."""

    def __init__(self, signum):
        super().__init__('stopped by %s' % signal.Signals(signum).name)
        self.signum = signum


class Trainer(Handle):
    """Trains a model on a data set; what happens alongside is the callbacks' business.

    Args:
      options: a trainers.options.Options.
      dataset: a gitloss.data.Dataset.
      callbacks: a list of callbacks.
      device: a trainers.devices.Device.
      versions: facts for the checkpoints' manifests.
      group: the trainers.distribution group of workers that this process trains in; None: it trains alone.
    """

    def __init__(self, options, dataset, callbacks, device, versions=None, group=None):
        self.options = options.as_dict()
        self.run_dir, self.run_name = options.run_dir, os.path.basename(options.run_dir)
        self.steps, self.every = options.steps, options.update_centers
        self.batch_size, self.num_classes = options.batch_size, dataset.num_classes
        self._options, self._dataset, self._device = options, dataset, device
        low, high = dataset.train.labels.min(), dataset.train.labels.max()
        if low < 0 or high >= dataset.num_classes:  # a CPU would say so at the step, other devices read nothing or zeros
            raise ValueError('labels of the training set: expected 0 to %d for %d classes. Received: %d to %d'
                             % (dataset.num_classes - 1, dataset.num_classes, low, high))
        self._versions = versions or {}
        self._group = group or OneWorker()
        self.rank, self.workers, self.is_chief = self._group.rank, self._group.size, self._group.is_chief
        self._callbacks = CallbackList(callbacks, self.is_chief)
        self._graph, self._session = tf.Graph(), None
        self._dir = rundir.RunDir(self.run_dir)
        self._store = checkpoints.CheckpointStore(os.path.join(self.run_dir, 'ckpt'), options.keep_checkpoints)
        self._step, self._epoch, self._stop_reason = 0, 0, None
        self._logs, self._totals = {}, {}         # the last measurement; sums over the steps since
        self._timing = {'seconds': 0.0, 'steps': 0}
        self._warm = False                        # the first step of a process also compiles
        self._step_before = -1                    # before the last session.run; 0 is a multiple of every interval, too
        self._per_run = options.iterations_per_loop
        self._skipped, self._skipped_in_a_row = 0, 0  # steps whose update was left out after an overflow
        self._saved_step, self._saved_at = -1, time.monotonic()
        self._tried_step = -1                     # where the last checkpoint was written, or would have been on a disk with room
        self._signal = None
        self._wishes = [0, 0]                     # the signal, and whether to save, that the workers have agreed on

    # --- the three phases ---------------------------------------------------------------------------------------------------

    def fit(self):
        """Runs the whole training, from the newest checkpoint of the run's folder if `resume` says so.

        Returns:
          The logs of the last measurement, with what the callbacks added at the end.

        Raises:
          ValueError: the options do not fit the data, the model or the run found in the folder; nothing has been written.
          TrainingError: the training cannot go on; what had been saved stays as it is.
          Interrupted: SIGTERM or SIGINT; the last whole step was saved. A second signal ends the process at once.
        """
        with self._graph.as_default():
            try:
                self._build()
                self._initialise()
                with self._signals():
                    logs = self._loop()
                self._callbacks.end(logs)
                self._group.finish(self._session)
            except tf.errors.OpError as error:
                raise TrainingError('step %d: %s' % (self._step, checkpoints.reason(error)))
            finally:
                self._callbacks.close()
                self._group.close(self._session)
                self._dir.release()
        return logs

    def evaluate(self, checkpoint, measure):
        """Restores the weights of a checkpoint, whichever TensorFlow wrote it, and returns `measure(self)`."""
        with self._graph.as_default():
            self._net = TrainingGraph(self._options, self._dataset, self._device, training=False)
            saver = tf.train.Saver(self._net.model.weights + self._net.center_layer.weights)
            self._graph.finalize()
            with tf.Session(graph=self._graph, config=self._device.config) as self._session:
                checkpoints.restore(self._session, saver, checkpoint)
                return measure(self)

    @property
    def failures(self):
        """Callbacks that failed while finishing, a line each."""
        return self._callbacks.failures

    def _build(self):
        self._net = TrainingGraph(self._options, self._dataset, self._device, self._group)
        self._callbacks.build(self)
        self._check_intervals()
        self._saver = checkpoints.Saver(tf.global_variables())
        self._initial = tf.global_variables_initializer()
        self._warm_saver, self._warm_start = self._prepare_warm_start()
        self._group.build(tf.global_variables())
        self._graph.finalize()

    def _check_intervals(self):
        """A sunk loop gives control back every so many steps: whatever is to happen must fall there."""
        intervals = {'--steps': self.steps, '--update_centers': self.every}
        if self._options.save_every and not self._options.save_interval[1]:
            intervals['--save_every'] = self._options.save_interval[0]
        for callback in self._callbacks.callbacks:
            intervals.update(callback.intervals)
        for name, steps in intervals.items():
            if steps % self._per_run:
                raise ValueError('--iterations_per_loop: expected a divisor of %s, %d. Received: %d' % (name, steps, self._per_run))

    def _prepare_warm_start(self):
        """For --init_checkpoint: a saver over what is taken from it, and the checkpoint."""
        if not self._options.init_checkpoint or not self.is_chief:
            return None, None
        checkpoint = checkpoints.find(self._options.init_checkpoint, '--init_checkpoint')
        there = {name: tuple(shape) for name, shape in checkpoints.variables(checkpoint)}
        fresh, taken = [], []
        for variable in self._net.model.weights + self._net.center_layer.weights:
            name, shape = name_of(variable), tuple(variable.shape.as_list())
            if there.get(name) == shape:
                taken.append(variable)
            elif name.split('/')[0] in ('logits', 'center_loss'):
                fresh.append(name)
            else:
                raise ValueError('--init_checkpoint: expected %s of shape %s as in this model. Received: %s'
                                 % (name, list(shape), list(there[name]) if name in there else 'a checkpoint without it'))
        self._fresh = fresh
        return tf.train.Saver(taken), checkpoint

    def _claim(self):
        """The folder, and the checkpoint to go on from, or None."""
        self._dir.claim()
        checkpoint = rundir.checkpoint_to_continue(self._options.resume, self._store, self.options, self._dataset_facts())
        if checkpoint is None:
            self._dir.move_aside()
        path = os.path.join(self.run_dir, 'options.json')
        with open(path + '.tmp', 'w', encoding='utf-8') as file:
            json.dump(self.options, file, indent=1)
        os.replace(path + '.tmp', path)
        return checkpoint

    def _claim_together(self):
        """The chief claims and decides; the others see that they train the same, and take its checkpoint's manifest."""
        facts = [self.options, self._dataset_facts()]
        options, dataset, found = self._group.decide(self._session, lambda: facts + [self._claim()])
        if not self.is_chief:
            os.makedirs(self.run_dir, exist_ok=True)
            differing = rundir.differing_flags(options, self.options, rundir.FREE_FOR_A_WORKER)
            if dataset != facts[1]:
                differing.append('--data_path (another data set)')
            if differing:
                raise ValueError('worker %d: expected the flags of worker 0. Received: %s'
                                 % (self.rank, ', '.join(differing)))
        return found and checkpoints.Checkpoint(*found)

    def _initialise(self):
        self._session = self._group.session(self._graph, self._device.config)
        checkpoint = self._claim_together()
        self._session.run(self._initial)
        if self._net.load_loop:
            self._net.load_loop(self._session)
        if checkpoint is not None:
            self._restore(checkpoint)
            log.info('continuing at step %d of %d from %s%s', self._step, self.steps, checkpoint.path,
                     '; all steps are done, --resume=never starts a new run' if self._step >= self.steps else '')
        else:
            if self._warm_start is not None:
                checkpoints.restore(self._session, self._warm_saver, self._warm_start)
                log.info('weights from %s%s', self._warm_start.path, '; fresh: ' + ', '.join(self._fresh) if self._fresh else '')
            self._group.spread(self._session)
            self._start_stream()

    def _start_stream(self):
        # Not in one run with the variables' initialisers: the NPU adapter then leaves them at zero.
        self._session.run(self._net.iterator.initializer, {self._net.first_step: self._step + self._skipped})

    def _restore(self, checkpoint):
        """Everything comes back: weights, slots, centers, step, the open sums, the callbacks' states."""
        manifest = checkpoint.manifest
        logs, totals, timing = dict(manifest['logs']), dict(manifest['totals']), dict(manifest['timing'])
        skipped = int(timing.pop('skipped', 0))
        sums = set(self._net.step_fetches) | {'steps', 'seconds', 'learning_rate'}
        if set(timing) != set(self._timing) or (totals and not (set(totals) == sums and totals['steps'] > 0 and totals['seconds'] > 0)):
            raise checkpoints.DamagedCheckpoint('%s: expected the sums of a run of this model in the manifest. Received: timing of %s, '
                                                'totals of %s' % (checkpoint.path, sorted(timing), sorted(totals)))
        try:
            self._callbacks.load_state(manifest['callbacks'])
        except ValueError as error:
            raise checkpoints.DamagedCheckpoint('%s: %s' % (checkpoint.path, error))
        if self.is_chief:
            checkpoints.restore(self._session, self._saver, checkpoint)
        self._group.spread(self._session)
        self._skipped, self._step_before = skipped, checkpoint.step
        self._step, self._epoch, self._saved_step = checkpoint.step, manifest['epoch'], checkpoint.step
        self._tried_step = checkpoint.step
        self._logs, self._totals, self._timing = logs, totals, timing
        self._start_stream()

    def _loop(self):
        self._callbacks.run('on_train_begin', self._logs)
        while True:
            try:
                if self._measurement_is_due():
                    self._measure()
                if self._save_is_due():
                    self._save_or_warn()
                self._obey_signal()
                if self._step >= self.steps or self._stop_reason:
                    return self._logs
                self._train_step()
            except Diverged as error:
                self._roll_back(error)

    # --- inside the loop ----------------------------------------------------------------------------------------------------

    def _train_step(self):
        if not self._totals:
            self._callbacks.run('on_epoch_begin', self._epoch + 1, {})
        batch = self._step + self._per_run
        self._callbacks.run('on_train_batch_begin', batch, {})
        fetches = dict(self._callbacks.fetches(batch), learning_rate=self._net.rate_of_step, **self._net.step_fetches)
        start = time.perf_counter()
        try:
            _, reached, values = self._run([self._net.train_op, self._net.steps_done, fetches])
        except tf.errors.InvalidArgumentError as error:
            raise TrainingError('step %d: %s' % (batch, checkpoints.reason(error)))
        seconds = time.perf_counter() - start
        done = int(reached) - self._step
        if done < self._per_run:
            self._note_overflow(self._per_run - done)
            if not done:
                return
        self._skipped_in_a_row = 0
        if self._warm:
            self._timing['seconds'] += seconds
            self._timing['steps'] += done
        self._warm = True
        self._step_before, self._step = self._step, int(reached)
        logs = {name: value.item() if np.ndim(value) == 0 else value for name, value in values.items()}
        for name, value in dict({name: done * logs[name] for name in self._net.step_fetches}, steps=done, seconds=seconds).items():
            self._totals[name] = self._totals.get(name, 0) + value
        self._totals['learning_rate'] = logs['learning_rate']  # of the last step, no sum
        logs['images_per_sec'] = self.batch_size * done / seconds
        if self._options.check_replicas and self.passed(self._options.check_replicas):
            self._group.check_replicas(self._session, self._step)
        self._callbacks.run('on_train_batch_end', self._step, logs)

    def _note_overflow(self, count):
        """Loss scaling left out `count` updates. The first one is told, then every time their number has doubled."""
        before, self._skipped = self._skipped, self._skipped + count
        self._skipped_in_a_row += count
        if self._skipped.bit_length() > before.bit_length():
            log.info('step %d: overflow under loss scaling, update left out; %d so far', self._step, self._skipped)
        if self._skipped_in_a_row > max(_MOST_OVERFLOWS, self._per_run):
            raise TrainingError('step %d: expected one without overflow. Received: %d in a row; is --loss_scale too large?'
                                % (self._step, self._skipped_in_a_row))

    def _run(self, fetches, feeds=None):
        """A run that all workers make; what they wish rides along, and is what they act upon."""
        wish = [self._signal or 0, self.is_chief and self._time_to_save()]
        values, self._wishes = self._group.run(self._session, fetches, feeds, wish, 'step %d' % (self._step + 1))
        return values

    def _measurement_is_due(self):
        last = self._step - self._totals.get('steps', 0)
        return bool(self._totals) and (self._step // self.every > last // self.every or self._step >= self.steps or bool(self._stop_reason))

    def _measure(self):
        """Closes the stretch since the last measurement: its means, and whatever the callbacks measure."""
        before = self._logs, self._totals, self._epoch, self._callbacks.state()
        means = {name: self._totals[name] / self._totals['steps'] for name in self._net.step_fetches}
        logs = {'step': self._step, 'train_acc': means.pop('accuracy'), 'center_drift': means.pop('center_drift'),
                'learning_rate': self._totals['learning_rate'],
                'images_per_sec': self.batch_size * self._totals['steps'] / self._totals['seconds'], 'seconds': self._totals['seconds']}
        logs.update({'train_' + name: value for name, value in means.items()})
        if self._net.loss_scaled:
            logs['overflow_steps'] = self._skipped
        logs = self._group.decide(self._session, lambda: logs)  # speeds differ: who watches one must decide alike everywhere
        self._logs, self._totals, self._epoch = logs, {}, self._epoch + 1
        try:
            self._callbacks.run('on_epoch_end', self._epoch, logs)
        except Interrupted:  # in a sweep: the checkpoint is of before the measurement, which the continued run makes
            self._logs, self._totals, self._epoch, states = before
            self._save_or_warn(states)
            raise

    def _save_is_due(self):
        """--save_every, beside the measurements."""
        if self._tried_step == self._step or not self._options.save_every:
            return False
        number, in_seconds = self._options.save_interval
        if in_seconds:
            return self._time_to_save() if self.workers == 1 else bool(self._wishes[1])
        return self.passed(number)

    def _time_to_save(self):
        """--save_every in seconds, by the clock of this process."""
        return self._options.save_every.endswith('s') and time.monotonic() - self._saved_at >= self._options.save_interval[0]

    def _roll_back(self, error):
        """Back to the last checkpoint with a smaller learning rate, if the error allows it; else the training ends."""
        found = self._group.decide(self._session, lambda: self._store.newest(checkpoints.TO_CONTINUE)) if error.rate_factor else None
        checkpoint = found and checkpoints.Checkpoint(*found)
        if checkpoint is None:
            raise TrainingError(str(error) + ('; there is no checkpoint to go back to' if error.rate_factor else ''))
        rate = self.learning_rate * error.rate_factor
        self._restore(checkpoint)
        self.learning_rate = rate
        self._callbacks.run('on_rewind', self._step)
        log.warning('%s; back to step %d, learning rate now %g', error, self._step, rate)

    def _signals(self):
        return _SignalHandlers(self)

    def _obey_signal(self, save=True):
        signum = self._signal if self.workers == 1 else self._wishes[0]
        if not signum:
            return
        if save and self._saved_step != self._step:
            self._save_or_warn()
        raise Interrupted(signum)

    def _save_or_warn(self, states=None):
        """A full disk costs this checkpoint, not the training."""
        try:
            self._write_checkpoint({}, self._callbacks.state() if states is None else states)
        except OSError as error:
            self._saved_at = time.monotonic()  # --save_every in seconds tries again after as many, not after each step
            log.warning('no checkpoint at step %d: %s; the ones before stay', self._step, error)

    def _dataset_facts(self):
        return {'name': self._dataset.name, 'num_classes': self.num_classes, 'image_shape': list(self._dataset.train.images.shape[1:]),
                'fingerprint': self._dataset.fingerprint}

    # --- what callbacks may ask ---------------------------------------------------------------------------------------------

    @property
    def step(self):
        return self._step

    def passed(self, every):
        return self._step // every > self._step_before // every

    def sweep(self, split, with_losses=False):
        fetches = dict(self._net.eval_fetches, **(self._net.eval_losses if with_losses else {}))
        part = data.part_of(self.batch_size, self.rank, self.workers)
        for images, labels, count in data.padded_batches(split, self.batch_size, self.rank, self.workers):
            self._obey_signal(save=False)
            values = self._run(fetches, {self._net.eval_images: images, self._net.eval_labels: labels[part]})
            batch_losses = {name: values[name].item() for name in LOSSES if name in values}
            yield values['embeddings'][:count], values['predictions'][:count], labels[:count], batch_losses

    def centers(self):
        return self._session.run(self._net.center_layer.centers)

    def center_updates(self):
        return self._session.run(self._net.center_layer.updates)

    def set_centers(self, values):
        self._session.run(self._net.set_centers, {self._net.new_centers: values})

    @property
    def session(self):
        return self._session

    @property
    def rate_variable(self):
        return self._net.learning_rate

    @property
    def learning_rate(self):
        return float(self._session.run(self._net.learning_rate))

    @learning_rate.setter
    def learning_rate(self, value):
        self._session.run(self._net.set_learning_rate, {self._net.new_learning_rate: value})

    def save(self, metrics=None):
        return self._write_checkpoint(metrics or {}, self._callbacks.state())

    def save_aside(self, path, metrics=None):
        contents = self._contents(metrics or {}, self._callbacks.state())
        return self._store.save_aside(path, self._session, self._saver, self._step, contents) if self.is_chief else path

    def _contents(self, metrics, states):
        """What a manifest says of the run as it is now."""
        if not self._session.run(self._net.weights_are_finite):
            raise Diverged('step %d: expected finite weights to save. Received: NaN or infinity' % self._step)
        return {'options': self.options, 'versions': self._versions, 'dataset': self._dataset_facts(), 'metrics': metrics,
                'epoch': self._epoch, 'logs': self._logs, 'totals': self._totals, 'callbacks': states,
                'timing': dict(self._timing, skipped=self._skipped)}

    def _write_checkpoint(self, metrics, states):
        self._tried_step = self._step
        contents = self._contents(metrics, states)  # on every worker: weights that are not finite stop or rewind them all
        path = self._store.save(self._session, self._saver, self._step, contents) if self.is_chief else ''
        self._saved_step, self._saved_at = self._step, time.monotonic()
        return path

    def throughput(self):
        seconds = self._timing['seconds'] / max(self._timing['steps'], 1)
        return {'images_per_sec': self.batch_size / seconds if seconds else None, 'sec_per_step': seconds}

    def stop(self, reason):
        log.info('stopping after step %d: %s', self._step, reason)
        self._stop_reason = reason


class _SignalHandlers:
    """While the loop runs, the first SIGTERM or SIGINT asks it to save and end; a second one ends the process at once."""

    def __init__(self, trainer):
        self._trainer, self._saved = trainer, {}

    def _note(self, signum, frame):
        self._trainer._signal = signum
        for other in self._saved:
            signal.signal(other, signal.SIG_DFL)
        try:
            log.warning('%s: saving after this step; once more ends the process at once', signal.Signals(signum).name)
        except RuntimeError:  # it came in the middle of a write to the same stream
            pass

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._saved = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
            for signum in self._saved:
                signal.signal(signum, self._note)

    def __exit__(self, *_):
        for signum, handler in self._saved.items():
            signal.signal(signum, handler)
