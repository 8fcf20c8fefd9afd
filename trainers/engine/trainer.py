"""The trainer: build, initialize, loop. Whatever a callback can do is not in it."""

from __future__ import annotations

import time
from typing import Any, Mapping, Sequence, cast

import numpy as np

from callbacks.list import CallbackList
from gitloss.backend import tf
from gitloss.data import Dataset, Source
from gitloss.errors import Diverged, Interrupted, TrainingError, log, reason
from trainers.devices import Device
from trainers.engine.handles import TrainingHandle
from trainers.engine.meter import Meter
from trainers.engine.resuming import Resuming
from trainers.engine.runtime import Runtime
from trainers.engine.saving import Saving
from trainers.engine.signals import Signals
from trainers.options import Options
from trainers.workers.group import OneWorker


class Trainer:
    """Trains a model on a data set. Callbacks measure, log, draw and save.

    Args:
      options: the settings of the run.
      dataset: has a training split.
      callbacks: their hooks are called in this order.
      device: where it trains.
      versions: versions of the libraries, for the manifests of the checkpoints.
      group: the workers that this process is one of; None: it works alone.

    Raises:
      ValueError: there is no training split, or a label is not a class.
    """

    def __init__(
        self,
        options: Options,
        dataset: Dataset,
        callbacks: Sequence[Any],
        device: Device,
        versions: Mapping[str, Any] | None = None,
        group: OneWorker | None = None,
    ) -> None:
        dataset.require('train')
        self._source = cast(Source, dataset.train)
        low, high = self._source.labels.min(), self._source.labels.max()
        classes = dataset.spec.num_classes
        # A CPU reports such a label at the step; other devices silently read zeros.
        if low < 0 or high >= classes:
            raise ValueError(
                f'labels of the training set: expected 0 to {classes - 1} for {classes} classes. '
                f'Received: {low} to {high}'
            )
        self.signals = Signals()
        # Any worker may ask to stop, after a signal; the chief also to save, by its clock.
        self.runtime = Runtime(
            options,
            dataset.spec,
            device,
            group,
            requests=lambda: (self.signals.received, self.saving.time_is_up),
        )
        self.callbacks = CallbackList(callbacks, self.runtime.group.is_chief)
        self.saving = Saving(
            self.runtime,
            {'options': options.as_dict(), 'versions': versions or {}, 'dataset': dataset.facts()},
            state=lambda: dict(self.meter.state(), callbacks=self.callbacks.state()),
        )
        self.resuming = Resuming(self.runtime, self.saving, self.callbacks)

    def fit(self) -> dict[str, Any]:
        """Runs the whole training, from the newest checkpoint of the run if `resume` allows it.

        Returns:
          The logs of the last measurement, with what the callbacks added at the end.

        Raises:
          ValueError: the options do not fit the data, the model or the run found in the folder;
            nothing is written.
          TrainingError: the training cannot go on; existing checkpoints stay as they are.
          Interrupted: SIGTERM or SIGINT; the last whole step is saved. A second signal ends the
            process at once.
        """
        group = self.runtime.group
        with tf.Graph().as_default():
            try:
                self.build()
                self.initialise()
                with self.signals:
                    logs = self.loop()
                self.callbacks.end(logs)
                group.finish(self.runtime.session)
            except tf.errors.OpError as error:
                raise TrainingError(f'step {self.runtime.step}: {reason(error)}')
            finally:
                self.callbacks.close()
                group.close(self.runtime.session)
                self.resuming.folder.release()
        return logs

    def build(self) -> None:
        """Builds everything that the session runs, into the current graph."""
        net, options = self.runtime.build(self._source), self.runtime.options
        self.meter = Meter(list(net.step_fetches), options.batch_size, net.loss_scaled)
        self.handle = TrainingHandle(self.runtime, self.saving, self.meter)
        self.callbacks.build(self.handle)
        self._check_intervals()
        self.saving.build(self.handle.metrics)
        self.resuming.build(self.meter)
        self.runtime.finish_build()

    def initialise(self) -> None:
        """Opens the session and gives all variables their values."""
        self.runtime.open()
        self.resuming.start()

    def loop(self) -> dict[str, Any]:
        """Trains, measures and saves until the last step. Returns the last measurement."""
        self.callbacks.run('on_train_begin', self.meter.logs)
        while True:
            try:
                if self._measurement_is_due:
                    self._measure()
                if self.saving.is_due:
                    self.saving.save_or_warn()
                self._obey_signal()
                if self._is_over:
                    return self.meter.logs
                self.train_step()
            except Diverged as error:
                self._roll_back(error)

    def _check_intervals(self) -> None:
        """Every interval must be a multiple of the steps of a sunk loop."""
        per_run = self.runtime.options.iterations_per_loop
        intervals = {
            '--steps': self.handle.steps,
            '--update_centers': self.handle.every,
            '--save_every': self.saving.every_steps,
        }
        for callback in self.callbacks.callbacks:
            intervals.update(callback.intervals)
        for name, steps in intervals.items():
            if steps % per_run:
                raise ValueError(
                    f'--iterations_per_loop: expected a divisor of {name}, {steps}. '
                    f'Received: {per_run}'
                )

    @property
    def _is_over(self) -> bool:
        return self.runtime.step >= self.handle.steps or bool(self.handle.stop_reason)

    @property
    def _measurement_is_due(self) -> bool:
        totals, step, every = self.meter.totals, self.runtime.step, self.handle.every
        last = step - totals.get('steps', 0)
        return bool(totals) and (step // every > last // every or self._is_over)

    def train_step(self) -> None:
        """One step, or the steps of one sunk loop, with the hooks around it."""
        runtime, net, options = self.runtime, self.runtime.net, self.runtime.options
        per_run = options.iterations_per_loop
        if not self.meter.totals:
            self.callbacks.run('on_epoch_begin', self.meter.epoch + 1, {})
        batch = runtime.step + per_run
        self.callbacks.run('on_train_batch_begin', batch, {})
        fetches = self.callbacks.fetches(
            batch, dict(net.step_fetches, learning_rate=net.rate_of_step)
        )
        start = time.perf_counter()
        try:
            _, reached, values = runtime.run([net.train_op, net.steps_done, fetches])
        except tf.errors.InvalidArgumentError as error:
            raise TrainingError(f'step {batch}: {reason(error)}')
        seconds = time.perf_counter() - start
        done = int(reached) - runtime.step
        if done < per_run:
            self.meter.add_overflows(runtime.step, per_run - done, per_run)
            if not done:
                return
        runtime.advance(int(reached))
        logs = {
            name: value.item() if np.ndim(value) == 0 else value for name, value in values.items()
        }
        self.meter.add(logs, done, seconds)
        logs['images_per_sec'] = self.handle.batch_size * done / seconds
        if options.check_replicas and runtime.passed(options.check_replicas):
            runtime.group.check_replicas(runtime.session, runtime.step)
        self.callbacks.run('on_train_batch_end', runtime.step, logs)

    def _measure(self) -> None:
        """Ends an epoch: the means of its steps, and the measurements of the callbacks."""
        before, runtime = self.saving.state(), self.runtime
        # The chief's: speeds differ, and callbacks that watch one must decide alike on all workers.
        logs = runtime.group.decide(runtime.session, lambda: self.meter.means(runtime.step))
        self.meter.close_epoch(logs)
        try:
            self.callbacks.run('on_test_begin', {})
            self.callbacks.run('on_epoch_end', self.meter.epoch, logs)
        except Interrupted:
            # In a sweep. The state is that of before it: a resumed run measures again.
            self.saving.save_or_warn(before)
            raise

    def _obey_signal(self) -> None:
        signum = self.runtime.agreed[0]  # read once: a signal may arrive at any moment
        if signum:
            if self.saving.saved_step != self.runtime.step:
                self.saving.save_or_warn()
            raise Interrupted(signum)

    def _roll_back(self, error: Diverged) -> None:
        """Restores the last checkpoint, with a smaller learning rate, if the error allows it.

        Raises:
          TrainingError: it does not, or there is no checkpoint.
        """
        if not error.rate_factor:
            raise TrainingError(str(error))
        checkpoint = self.resuming.newest()
        if checkpoint is None:
            raise TrainingError(f'{error}; there is no checkpoint to go back to')
        rate = self.handle.learning_rate * error.rate_factor
        self.resuming.restore(checkpoint)
        self.handle.learning_rate = rate
        self.callbacks.run('on_rewind', self.runtime.step)
        log.warning('%s; back to step %d, learning rate now %g', error, self.runtime.step, rate)
