"""Where a run starts: at its own checkpoint, at the weights of another run, or anew."""

from __future__ import annotations

import os

from callbacks.list import CallbackList
from gitloss.errors import DamagedCheckpoint, log
from trainers import checkpoints
from trainers.checkpoints import rundir
from trainers.checkpoints.warm_start import WarmStart
from trainers.engine.meter import Meter
from trainers.engine.runtime import Runtime
from trainers.engine.saving import Saving


class Resuming:
    """Holds the folder of the run, and takes up what is found there.

    Args:
      runtime, saving, callbacks: of the run.
    """

    def __init__(self, runtime: Runtime, saving: Saving, callbacks: CallbackList) -> None:
        self._runtime, self._saving, self._callbacks = runtime, saving, callbacks
        self._folder = rundir.RunDir(runtime.options.run_dir)
        self._warm_start: WarmStart | None = None

    def build(self, meter: Meter) -> None:
        """Finds the weights of --init_checkpoint. `meter`: of the run."""
        self._meter, path = meter, self._runtime.options.init_checkpoint
        if path and self._runtime.group.is_chief:
            self._warm_start = WarmStart(path, self._runtime.net.weights)

    def start(self) -> None:
        """Claims the folder and gives all variables their values: first, fine-tuned or restored.

        Raises:
          ValueError: the folder cannot be used, or the run found in it is another one.
        """
        runtime = self._runtime
        checkpoint = self._claim()
        runtime.initialise()
        if checkpoint is not None:
            self.restore(checkpoint)
            left = runtime.options.steps - runtime.step
            log.info(
                'continuing at step %d of %d from %s%s',
                runtime.step,
                runtime.options.steps,
                checkpoint.path,
                '' if left > 0 else '; all steps are done, --resume=never starts a new run',
            )
        else:
            if self._warm_start is not None:
                self._warm_start.restore(runtime.session)
            runtime.group.broadcast_variables(runtime.session)
            self._start_stream()

    def _claim(self) -> checkpoints.Checkpoint | None:
        """The chief claims the folder and decides what to continue. The others compare flags and
        data with it, and take its checkpoint's manifest.
        """
        group, resume, store = self._runtime.group, self._runtime.options.resume, self._saving.store
        facts = [self._saving.facts[name] for name in ('options', 'dataset')]
        *chiefs, found = group.decide(
            self._runtime.session, lambda: [*facts, self._folder.begin(resume, store, *facts)]
        )
        if not group.is_chief:
            os.makedirs(self._folder.path, exist_ok=True)
            rundir.check_worker(group.rank, facts, chiefs)
        return found and checkpoints.Checkpoint(*found)

    def newest(self) -> checkpoints.Checkpoint | None:
        """The newest whole checkpoint of the chief, for all workers."""
        found = self._runtime.group.decide(
            self._runtime.session, lambda: self._saving.store.newest(checkpoints.TO_CONTINUE)
        )
        return found and checkpoints.Checkpoint(*found)

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Takes up all of a run: sums, the callbacks' states, variables, step, the batches.

        Raises:
          DamagedCheckpoint: the checkpoint is not of such a run.
        """
        self._meter.load(checkpoint)
        try:
            self._callbacks.load_state(checkpoint.manifest['callbacks'])
        except ValueError as error:
            raise DamagedCheckpoint(f'{checkpoint.path}: {error}')
        self._saving.restore(checkpoint)
        self._start_stream()

    def _start_stream(self) -> None:
        # Not in one run with the variables' initialisers: the NPU adapter then leaves them at zero.
        net, first_step = self._runtime.net, self._runtime.step + self._meter.skipped
        self._runtime.session.run(net.iterator.initializer, {net.first_step: first_step})

    def release(self) -> None:
        """Unlocks the folder."""
        self._folder.release()
