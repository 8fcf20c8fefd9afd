"""The checkpoints of a run: when and how it writes them, and how it restores one."""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Mapping

from gitloss.backend import tf
from gitloss.errors import Diverged, log
from gitloss.metrics import Metric, declaration
from trainers import checkpoints
from trainers.engine.runtime import Runtime


class Saving:
    """The checkpoints of a run: at measurements, by --save_every, and when a signal ends it.

    Args:
      runtime: owns the variables to save.
      facts: facts about the run for each manifest: `options`, `versions`, `dataset`.
      state: () -> {name: JSON value}, what a resumed run needs besides the variables.

    Attributes:
      facts, state: as given.
      store: the run's series of checkpoints.
      every_steps: the interval of --save_every if it is in steps, else 0.
      saved_step: the step of the last checkpoint; -1: none yet.
    """

    def __init__(
        self,
        runtime: Runtime,
        facts: Mapping[str, Any],
        state: Callable[[], dict[str, Any]],
    ) -> None:
        self._runtime, self.facts, self.state = runtime, facts, state
        self.store = checkpoints.CheckpointStore(
            os.path.join(runtime.options.run_dir, 'ckpt'), runtime.options.keep_checkpoints
        )
        self.every_steps, self._every_seconds = runtime.options.save_interval
        self.saved_step, self._saved_at = -1, time.monotonic()
        self._tried_step = -1  # step of the last attempt; a full disk may have refused it

    def build(self, metrics: Mapping[str, Metric]) -> None:
        """Creates the operations of the saver. `metrics`: --best names one of them."""
        self._saver = checkpoints.Saver(tf.global_variables())
        options, self._best = self._runtime.options, {}
        # Without validation nothing measures the default of --best.
        if options.best in metrics or options.best != type(options).best:
            metric = declaration.chosen(metrics, options.best, '--best')
            self._best = {'name': metric.name, 'higher_is_better': metric.higher_is_better}

    @property
    def time_is_up(self) -> bool:
        """Whether the seconds of --save_every have passed, by the clock of the chief."""
        seconds = time.monotonic() - self._saved_at
        return self._runtime.group.is_chief and 0 < self._every_seconds <= seconds

    @property
    def is_due(self) -> bool:
        """Whether --save_every asks for a checkpoint of this step."""
        if self._every_seconds:
            is_due = bool(self._runtime.agreed[1])
        else:
            is_due = self.every_steps > 0 and self._runtime.passed(self.every_steps)
        return is_due and self._tried_step != self._runtime.step

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
        runtime, state, path = self._runtime, state or self.state(), ''
        self._tried_step = runtime.step
        contents = self._contents(metrics, state)
        if runtime.group.is_chief:
            path = self.store.save(runtime.session, self._saver, runtime.step, contents)
        self.saved_step, self._saved_at = runtime.step, time.monotonic()
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
        """Writes a checkpoint outside the series of the run. Returns its path.

        Raises:
          OSError: the disk is full.
          ValueError: `path` exists and is not a checkpoint.
          Diverged: the weights are not finite.
        """
        runtime, contents = self._runtime, self._contents(metrics, self.state())
        if runtime.group.is_chief:
            path = self.store.save_aside(path, runtime.session, self._saver, runtime.step, contents)
        return path

    def _contents(
        self, metrics: Mapping[str, float] | None, state: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The manifest. Every worker checks the weights, so that all stop or roll back alike."""
        runtime = self._runtime
        if not runtime.session.run(runtime.net.weights_are_finite):
            raise Diverged(
                f'step {runtime.step}: expected finite weights to save. Received: NaN or infinity'
            )
        return {**self.facts, 'metrics': metrics or {}, 'best': self._best, **state}

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Gives all workers the variables of a checkpoint that the chief reads."""
        runtime = self._runtime
        if runtime.group.is_chief:
            checkpoints.restore(runtime.session, self._saver, checkpoint)
        runtime.group.broadcast_variables(runtime.session)
        runtime.rewind(checkpoint.step)
        self.saved_step = self._tried_step = checkpoint.step
