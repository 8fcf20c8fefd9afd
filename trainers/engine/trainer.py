"""The trainer: build, initialise, loop, and nothing that a callback can do."""

from __future__ import annotations

import os
import time

import numpy as np

from callbacks.base import CallbackList
from gitloss.backend import tf
from gitloss.errors import DamagedCheckpoint, Diverged, Interrupted, TrainingError, log, reason
from gitloss.metrics import declaration
from trainers import checkpoints
from trainers.checkpoints import rundir
from trainers.checkpoints.warm_start import WarmStart
from trainers.engine.evaluator import Evaluator
from trainers.engine.graph import TrainingGraph
from trainers.engine.meter import Meter
from trainers.engine.signals import Signals


class Trainer(Evaluator):
    """Trains a model on a data set; what happens alongside is the callbacks' business.

    Args, beside those of Evaluator:
      dataset: a gitloss.data.Dataset with a training split, in place of its spec.
      callbacks: a list of callbacks.
      versions: facts for the checkpoints' manifests.
    """

    def __init__(self, options, dataset, callbacks, device, versions=None, group=None):
        super().__init__(options, dataset.spec, device, group)
        self._dataset = dataset
        dataset.require('train')
        low, high = dataset.train.labels.min(), dataset.train.labels.max()
        # A CPU would say so at the step, other devices read nothing or zeros.
        if low < 0 or high >= self.num_classes:
            raise ValueError(
                f'labels of the training set: expected 0 to {self.num_classes - 1} for '
                f'{self.num_classes} classes. Received: {low} to {high}'
            )
        self.run_dir, self.run_name = options.run_dir, os.path.basename(options.run_dir)
        self.steps, self.every = options.steps, options.update_centers
        self._versions = versions or {}
        self._callbacks = CallbackList(callbacks, self.is_chief)
        self._dir = rundir.RunDir(self.run_dir)
        self._store = checkpoints.CheckpointStore(
            os.path.join(self.run_dir, 'ckpt'), options.keep_checkpoints
        )
        self._best = {}  # of a manifest: the metric that chooses the best checkpoint
        self._step, self._stop_reason = 0, None
        self._step_before = (
            -1
        )  # before the last session.run; 0 is a multiple of every interval, too
        self._per_run = options.iterations_per_loop
        self._save_steps, self._save_seconds = options.save_interval
        self._saved_step, self._saved_at = -1, time.monotonic()
        self._tried_step = (
            -1
        )  # where the last checkpoint was written, or would have been on a disk with room
        self._signals = Signals()
        self._wishes = [0, 0]  # the signal, and whether to save, that the workers have agreed on

    # --- the three phases
    # ---------------------------------------------------------------------------------------------------

    def fit(self):
        """Runs the whole training, from the newest checkpoint of the run's folder if `resume` says
        so.

        Returns:
          The logs of the last measurement, with what the callbacks added at the end.

        Raises:
          ValueError: the options do not fit the data, the model or the run found in the folder;
            nothing has been written.
          TrainingError: the training cannot go on; what had been saved stays as it is.
          Interrupted: SIGTERM or SIGINT; the last whole step was saved. A second signal ends the
            process at once.
        """
        with self._graph.as_default():
            try:
                self._build()
                self._initialise()
                with self._signals:
                    logs = self._loop()
                self._callbacks.end(logs)
                self._group.finish(self._session)
            except tf.errors.OpError as error:
                raise TrainingError('step %d: %s' % (self._step, reason(error)))
            finally:
                self._callbacks.close()
                self._group.close(self._session)
                self._dir.release()
        return logs

    @property
    def failures(self):
        """Callbacks that failed while finishing, a line each."""
        return self._callbacks.failures

    def _build(self):
        self._net = TrainingGraph(
            self._options, self._spec, self._device, self._group, self._dataset.train
        )
        self._meter = Meter(list(self._net.step_fetches), self.batch_size, self._net.loss_scaled)
        self.metrics = declaration.by_name(self._meter.metrics)
        self._callbacks.build(self)
        best = self._options.best
        # The default is not measured by a run without evaluation, which has no best checkpoint.
        if best in self.metrics or best != type(self._options).best:
            metric = declaration.chosen(self.metrics, best, '--best')
            self._best = {'name': best, 'higher_is_better': metric.higher_is_better}
        self._check_intervals()
        self._saver = checkpoints.Saver(tf.global_variables())
        self._initial = tf.global_variables_initializer()
        self._warm_start = None
        if self._options.init_checkpoint and self.is_chief:
            self._warm_start = WarmStart(self._options.init_checkpoint, self._net.weights)
        self._group.build(tf.global_variables())
        self._graph.finalize()

    def _check_intervals(self):
        """A sunk loop gives control back every so many steps: whatever is to happen must fall
        there.
        """
        intervals = {
            '--steps': self.steps,
            '--update_centers': self.every,
            '--save_every': self._save_steps,
        }
        for callback in self._callbacks.callbacks:
            intervals.update(callback.intervals)
        for name, steps in intervals.items():
            if steps % self._per_run:
                raise ValueError(
                    '--iterations_per_loop: expected a divisor of %s, %d. Received: %d'
                    % (name, steps, self._per_run)
                )

    def _claim(self):
        """The chief claims the folder and decides; the others see that they train the same, and
        take its checkpoint's manifest.
        """
        facts = [self.options, self._dataset.facts()]
        *chiefs, found = self._group.decide(
            self._session,
            lambda: facts + [self._dir.begin(self._options.resume, self._store, *facts)],
        )
        if not self.is_chief:
            os.makedirs(self.run_dir, exist_ok=True)
            rundir.check_worker(self.rank, facts, chiefs)
        return found and checkpoints.Checkpoint(*found)

    def _initialise(self):
        self._session = self._group.session(self._graph, self._device.config)
        checkpoint = self._claim()
        self._session.run(self._initial)
        if self._net.load_loop:
            self._net.load_loop(self._session)
        if checkpoint is not None:
            self._restore(checkpoint)
            log.info(
                'continuing at step %d of %d from %s%s',
                self._step,
                self.steps,
                checkpoint.path,
                '; all steps are done, --resume=never starts a new run'
                if self._step >= self.steps
                else '',
            )
        else:
            if self._warm_start is not None:
                self._warm_start.restore(self._session)
            self._group.spread(self._session)
            self._start_stream()

    def _start_stream(self):
        # Not in one run with the variables' initialisers: the NPU adapter then leaves them at zero.
        self._session.run(
            self._net.iterator.initializer, {self._net.first_step: self._step + self._meter.skipped}
        )

    def _restore(self, checkpoint):
        """Everything comes back: weights, slots, centers, step, the open sums, the callbacks'
        states.
        """
        self._meter.load(checkpoint)
        try:
            self._callbacks.load_state(checkpoint.manifest['callbacks'])
        except ValueError as error:
            raise DamagedCheckpoint(f'{checkpoint.path}: {error}')
        if self.is_chief:
            checkpoints.restore(self._session, self._saver, checkpoint)
        self._group.spread(self._session)
        self._step = self._step_before = self._saved_step = self._tried_step = checkpoint.step
        self._start_stream()

    def _loop(self):
        self._callbacks.run('on_train_begin', self._meter.logs)
        while True:
            try:
                if self._measurement_is_due():
                    self._measure()
                if self._save_is_due():
                    self._save_or_warn()
                self._obey_signal()
                if self._step >= self.steps or self._stop_reason:
                    return self._meter.logs
                self._train_step()
            except Diverged as error:
                self._roll_back(error)

    # --- inside the loop
    # ----------------------------------------------------------------------------------------------------

    def _train_step(self):
        if not self._meter.totals:
            self._callbacks.run('on_epoch_begin', self._meter.epoch + 1, {})
        batch = self._step + self._per_run
        self._callbacks.run('on_train_batch_begin', batch, {})
        fetches = self._callbacks.fetches(
            batch, dict(self._net.step_fetches, learning_rate=self._net.rate_of_step)
        )
        start = time.perf_counter()
        try:
            _, reached, values = self._run([self._net.train_op, self._net.steps_done, fetches])
        except tf.errors.InvalidArgumentError as error:
            raise TrainingError('step %d: %s' % (batch, reason(error)))
        seconds = time.perf_counter() - start
        done = int(reached) - self._step
        if done < self._per_run:
            self._meter.add_overflows(self._step, self._per_run - done, self._per_run)
            if not done:
                return
        self._step_before, self._step = self._step, int(reached)
        logs = {
            name: value.item() if np.ndim(value) == 0 else value for name, value in values.items()
        }
        self._meter.add(logs, done, seconds)
        logs['images_per_sec'] = self.batch_size * done / seconds
        if self._options.check_replicas and self.passed(self._options.check_replicas):
            self._group.check_replicas(self._session, self._step)
        self._callbacks.run('on_train_batch_end', self._step, logs)

    def _run(self, fetches, feeds=None):
        """A run that all workers make; what they wish rides along, and is what they act upon."""
        wish = [self._signals.received, self.is_chief and self._time_to_save()]
        values, self._wishes = self._group.run(
            self._session, fetches, feeds, wish, 'step %d' % (self._step + 1)
        )
        return values

    def _measurement_is_due(self):
        totals = self._meter.totals
        last = self._step - totals.get('steps', 0)
        return bool(totals) and (
            self._step // self.every > last // self.every
            or self._step >= self.steps
            or bool(self._stop_reason)
        )

    def _measure(self):
        """Closes the stretch since the last measurement: its means, and whatever the callbacks
        measure.
        """
        before = self._state()
        # From the chief: speeds differ, and who watches one must decide alike everywhere.
        logs = self._group.decide(self._session, lambda: self._meter.means(self._step))
        self._meter.close_epoch(logs)
        try:
            self._callbacks.run('on_test_begin', {})
            self._callbacks.run('on_epoch_end', self._meter.epoch, logs)
        except (
            Interrupted
        ):  # in a sweep: the checkpoint is of before the measurement, which the continued run makes
            self._save_or_warn(before)
            raise

    def _save_is_due(self):
        """--save_every, beside the measurements."""
        if self._tried_step == self._step:
            return False
        if self._save_seconds:
            return self._time_to_save() if self.workers == 1 else bool(self._wishes[1])
        return self._save_steps > 0 and self.passed(self._save_steps)

    def _time_to_save(self):
        """--save_every in seconds, by the clock of this process."""
        return self._save_seconds > 0 and time.monotonic() - self._saved_at >= self._save_seconds

    def _roll_back(self, error):
        """Back to the last checkpoint with a smaller learning rate, if the error allows it; else
        the training ends.
        """
        found = (
            self._group.decide(self._session, lambda: self._store.newest(checkpoints.TO_CONTINUE))
            if error.rate_factor
            else None
        )
        checkpoint = found and checkpoints.Checkpoint(*found)
        if checkpoint is None:
            raise TrainingError(
                str(error) + ('; there is no checkpoint to go back to' if error.rate_factor else '')
            )
        rate = self.learning_rate * error.rate_factor
        self._restore(checkpoint)
        self.learning_rate = rate
        self._callbacks.run('on_rewind', self._step)
        log.warning('%s; back to step %d, learning rate now %g', error, self._step, rate)

    def _obey_signal(self, save=True):
        signum = self._signals.received if self.workers == 1 else self._wishes[0]
        if not signum:
            return
        if save and self._saved_step != self._step:
            self._save_or_warn()
        raise Interrupted(signum)

    def _save_or_warn(self, state=None):
        """A full disk costs this checkpoint, not the training. `state`: of now, if not another
        one.
        """
        try:
            self._write_checkpoint({}, state or self._state())
        except OSError as error:
            self._saved_at = (
                time.monotonic()
            )  # --save_every in seconds tries again after as many, not after each step
            log.warning('no checkpoint at step %d: %s; the ones before stay', self._step, error)

    # --- what callbacks may ask
    # ---------------------------------------------------------------------------------------------

    @property
    def step(self):
        return self._step

    def passed(self, every):
        return self._step // every > self._step_before // every

    def sweep(self, source, with_losses=False):
        for batch in super().sweep(source, with_losses):
            self._obey_signal(save=False)
            yield batch

    def save(self, metrics=None):
        return self._write_checkpoint(metrics or {}, self._state())

    def save_aside(self, path, metrics=None):
        contents = self._contents(metrics or {}, self._state())
        return (
            self._store.save_aside(path, self._session, self._saver, self._step, contents)
            if self.is_chief
            else path
        )

    def _state(self):
        """What a continued run takes up beside the variables."""
        return dict(self._meter.state(), callbacks=self._callbacks.state())

    def _contents(self, metrics, state):
        """What a manifest says of the run."""
        if not self._session.run(self._net.weights_are_finite):
            raise Diverged(
                'step %d: expected finite weights to save. Received: NaN or infinity' % self._step
            )
        return dict(
            options=self.options,
            versions=self._versions,
            dataset=self._dataset.facts(),
            metrics=metrics,
            best=self._best,
            **state,
        )

    def _write_checkpoint(self, metrics, state):
        self._tried_step = self._step
        contents = self._contents(
            metrics, state
        )  # on every worker: weights that are not finite stop or rewind them all
        path = (
            self._store.save(self._session, self._saver, self._step, contents)
            if self.is_chief
            else ''
        )
        self._saved_step, self._saved_at = self._step, time.monotonic()
        return path

    def throughput(self):
        return self._meter.throughput()

    def stop(self, reason):
        log.info('stopping after step %d: %s', self._step, reason)
        self._stop_reason = reason
