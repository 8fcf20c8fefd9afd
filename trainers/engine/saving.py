"""The checkpoints of a run: when it writes them, and what they hold."""

from __future__ import annotations

import functools
import os
import time
from typing import Any, Callable, Mapping

from gitloss.backend import tf
from gitloss.errors import Diverged, log
from gitloss.metrics import declaration
from trainers import checkpoints
from trainers.engine.runtime import Runtime


class Saving:
    """Saves at measurements, by --save_every, and when a signal ends the run.

    Args:
      runtime: owns the variables to save.
      facts: facts about the run for each manifest: `options`, `versions`, `dataset`.
      state: () -> {name: JSON value}, what a resumed run needs besides the variables.

    Attributes:
      facts, state: as given.
      store: the run's series of checkpoints.
      saver: writes and reads the variables, once built.
      every_steps: the interval of --save_every if it is in steps, else 0.
      saved_step: the step of the last checkpoint; -1: none yet.
      tried_step: the step of the last attempt, which a full disk may have refused.
    """

    def __init__(
        self,
        runtime: Runtime,
        facts: Mapping[str, Any],
        state: Callable[[], dict[str, Any]],
    ) -> None:
        self._runtime, self.facts, self.state = runtime, facts, state
        self.store = checkpoints.CheckpointStore(
            os.path.join(runtime.run_dir, 'ckpt'),
            runtime.settings.keep_checkpoints,
            runtime.folder.check,
        )
        self.every_steps, self._every_seconds = runtime.settings.save_interval
        self.saved_step = self.tried_step = -1
        self._saved_at = time.monotonic()

    def build(self) -> None:
        """Creates the operations of the saver, after the metrics that --best can name are known."""
        self.saver = checkpoints.Saver(tf.global_variables(), self._runtime.group)
        metrics, best, self._best = self._runtime.metrics, self._runtime.settings.best, {}
        # Without validation nothing measures the default of --best.
        if best in metrics or best != type(self._runtime.settings).best:
            metric = declaration.chosen(metrics, best, '--best')
            self._best = {'name': metric.name, 'higher_is_better': metric.higher_is_better}

    @property
    def time_is_up(self) -> bool:
        """Whether the seconds of --save_every have passed, by the clock of the chief."""
        return self._runtime.is_chief and (
            0 < self._every_seconds <= time.monotonic() - self._saved_at
        )

    @property
    def is_due(self) -> bool:
        """Whether --save_every asks for a checkpoint of this step."""
        is_new = self.tried_step != self._runtime.step
        if self._every_seconds:
            return is_new and bool(self._runtime.agreed[1])
        return is_new and self.every_steps > 0 and self._runtime.passed(self.every_steps)

    def save(
        self, metrics: Mapping[str, float] | None = None, state: dict[str, Any] | None = None
    ) -> str:
        """Writes a checkpoint of this step, on the chief. Returns its path.

        Args:
          metrics: the values for the choice of the best checkpoint.
          state: what is saved besides the variables; None: the current state.

        Raises:
          OSError: the disk is full.
          Diverged: the weights are not finite.
        """
        self.tried_step = self._runtime.step
        path = self._write(self.store.save, metrics, state or self.state())
        self.saved_step, self._saved_at = self.tried_step, time.monotonic()
        return path

    def save_or_warn(self, state: dict[str, Any] | None = None) -> None:
        """As `save`, but a full disk costs this checkpoint, not the training."""
        try:
            self.save(state=state)
        except OSError as error:
            # --save_every in seconds tries again after its interval, not after every step.
            self._saved_at = time.monotonic()
            log.warning(
                'no checkpoint at step %d: %s; the ones before stay', self._runtime.step, error
            )

    def save_aside(self, path: str, metrics: Mapping[str, float] | None = None) -> str:
        """Writes a checkpoint outside the series of the run, on the chief. Returns its path.

        Raises:
          OSError: the disk is full.
          ValueError: `path` exists and is not a checkpoint.
          Diverged: the weights are not finite.
        """
        write = functools.partial(self.store.save_aside, path)
        return self._write(write, metrics, self.state()) or path

    def _write(
        self, write: Callable[..., str], metrics: Mapping[str, float] | None, state: dict[str, Any]
    ) -> str:
        """All workers check the weights, so that all stop or roll back alike. The chief writes."""
        runtime = self._runtime
        if not runtime.session.run(runtime.net.weights_are_finite):
            raise Diverged(
                f'step {runtime.step}: expected finite weights to save. Received: NaN or infinity'
            )
        contents = {**self.facts, 'metrics': metrics or {}, 'best': self._best, **state}
        with self.saver.gathering(runtime.session):
            if runtime.is_chief:
                return write(runtime.session, self.saver, runtime.step, contents)
        return ''
