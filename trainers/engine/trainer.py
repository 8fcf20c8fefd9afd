"""The trainer: build, initialize, loop. Whatever a callback can do is not in it."""

from __future__ import annotations

import time
from typing import Any, Mapping, Sequence, cast

import numpy as np

from callbacks.list import CallbackList
from gitloss.backend import tf
from gitloss.data import Dataset, Source
from gitloss.errors import Diverged, Interrupted, TrainingError, reason
from trainers.devices import Device
from trainers.engine import resuming
from trainers.engine.saving import Saving
from trainers.engine.signals import Signals
from trainers.engine.training import TrainingRuntime
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
        self.runtime = TrainingRuntime(
            options,
            dataset.spec,
            device,
            group,
            requests=lambda: (self.signals.received, self.saving.time_is_up),
        )
        self.callbacks = CallbackList(callbacks, self.runtime.is_chief)
        self.saving = self.runtime.saving = Saving(
            self.runtime,
            {'options': options.as_dict(), 'versions': versions or {}, 'dataset': dataset.facts()},
            state=lambda: dict(self.runtime.meter.state(), callbacks=self.callbacks.state()),
        )

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
        with tf.Graph().as_default():
            try:
                self.build()
                self.initialise()
                with self.signals:
                    logs = self.loop()
                self.callbacks.end(logs)
                self.runtime.group.finish(self.runtime.session)
            except tf.errors.OpError as error:
                raise TrainingError(f'step {self.runtime.step}: {reason(error)}')
            finally:
                self.callbacks.close()
                self.runtime.group.close(self.runtime.session)
                self.runtime.folder.release()
        return logs

    def build(self) -> None:
        """Builds everything that the session runs, into the current graph."""
        self.runtime.build(self._source)
        self.callbacks.build(self.runtime)
        self._check_intervals()
        self.saving.build()
        self.runtime.finish_build()

    def initialise(self) -> None:
        """Opens the session and gives all variables their values."""
        self.runtime.open()
        resuming.start(self.runtime, self.callbacks)

    def loop(self) -> dict[str, Any]:
        """Trains, measures and saves until the last step. Returns the last measurement."""
        self.callbacks.run('on_train_begin', self.runtime.meter.logs)
        while True:
            try:
                if self._measurement_is_due:
                    self._measure()
                signum = self.runtime.agreed[0]  # read once: a signal may arrive at any moment
                if self.saving.is_due or (signum and self.saving.saved_step != self.runtime.step):
                    self.saving.save_or_warn()
                if signum:
                    raise Interrupted(signum)
                if self._is_over:
                    return self.runtime.meter.logs
                self.train_step()
            except Diverged as error:
                resuming.roll_back(self.runtime, self.callbacks, error)

    def _check_intervals(self) -> None:
        """Every interval must be a multiple of the steps of a sunk loop."""
        per_run = self.runtime.settings.iterations_per_loop
        intervals = {
            '--steps': self.runtime.steps,
            '--update_centers': self.runtime.every,
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
        return self.runtime.step >= self.runtime.steps or bool(self.runtime.stop_reason)

    @property
    def _measurement_is_due(self) -> bool:
        step, every = self.runtime.step, self.runtime.every
        steps = self.runtime.meter.totals['steps']
        return steps > 0 and (step // every > (step - steps) // every or self._is_over)

    def train_step(self) -> None:
        """One step, or the steps of one sunk loop, with the hooks around it."""
        runtime, net, meter = self.runtime, self.runtime.net, self.runtime.meter
        settings, per_run = runtime.settings, runtime.settings.iterations_per_loop
        if not meter.totals:
            self.callbacks.run('on_epoch_begin', meter.epoch + 1, {})
        batch = runtime.step + per_run
        net.enter(runtime.step)
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
            meter.add_overflows(runtime.step, per_run - done, per_run)
            if not done:
                return
        runtime.reach(int(reached), before=runtime.step)
        logs = {
            name: value.item() if np.ndim(value) == 0 else value for name, value in values.items()
        }
        meter.add(logs, done, seconds)
        logs['images_per_sec'] = runtime.batch_size * done / seconds
        if settings.check_replicas and runtime.passed(settings.check_replicas):
            runtime.group.check_replicas(runtime.session, runtime.step)
        self.callbacks.run('on_train_batch_end', runtime.step, logs)

    def _measure(self) -> None:
        """Ends an epoch: the means of its steps, and the measurements of the callbacks."""
        before, runtime, meter = self.saving.state(), self.runtime, self.runtime.meter
        # The chief's: speeds differ, and callbacks that watch one must decide alike on all workers.
        logs = runtime.group.decide(runtime.session, lambda: meter.means(runtime.step))
        meter.close_epoch(logs)
        try:
            self.callbacks.run('on_test_begin', {})
            self.callbacks.run('on_epoch_end', meter.epoch, logs)
        except Interrupted:
            # In a sweep. The state is that of before it: a resumed run measures again.
            self.saving.save_or_warn(before)
            raise
