"""The start of a run: at its own checkpoint, at the weights of another run, or at step 0."""

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
    """Locks the folder of the run and restores the run found there.

    Args:
      runtime, saving, callbacks: of the run.

    Attributes:
      folder: the folder of the run.
    """

    def __init__(self, runtime: Runtime, saving: Saving, callbacks: CallbackList) -> None:
        self._runtime, self._saving, self._callbacks = runtime, saving, callbacks
        self.folder = rundir.RunDir(runtime.options.run_dir)
        self._warm_start: WarmStart | None = None

    def build(self, meter: Meter) -> None:
        """Finds the weights of --init_checkpoint. `meter`: the one of the run."""
        self._meter, path = meter, self._runtime.options.init_checkpoint
        if path and self._runtime.group.is_chief:
            self._warm_start = WarmStart(path, self._runtime.net.weights)

    def start(self) -> None:
        """Claims the folder and gives all variables their values: initial, of --init_checkpoint, or
        restored.

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
        """The chief claims the folder and chooses the checkpoint to continue. The other workers
        compare their flags and data with the chief's, and receive the manifest.
        """
        group, resume, store = self._runtime.group, self._runtime.options.resume, self._saving.store
        facts = [self._saving.facts[name] for name in ('options', 'dataset')]
        *chiefs, found = group.decide(
            self._runtime.session, lambda: [*facts, self.folder.begin(resume, store, *facts)]
        )
        if not group.is_chief:
            os.makedirs(self.folder.path, exist_ok=True)
            rundir.check_worker(group.rank, facts, chiefs)
        return found and checkpoints.Checkpoint(*found)

    def newest(self) -> checkpoints.Checkpoint | None:
        """The newest whole checkpoint of the chief, for all workers."""
        found = self._runtime.group.decide(
            self._runtime.session, lambda: self._saving.store.newest(checkpoints.TO_CONTINUE)
        )
        return found and checkpoints.Checkpoint(*found)

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Restores a run: sums, states of the callbacks, variables, step, position in the batches.

        Raises:
          DamagedCheckpoint: the checkpoint is of another kind of run.
        """
        self._meter.load(checkpoint)
        try:
            self._callbacks.load_state(checkpoint.manifest['callbacks'])
        except ValueError as error:
            raise DamagedCheckpoint(f'{checkpoint.path}: {error}')
        self._saving.restore(checkpoint)
        self._start_stream()

    def _start_stream(self) -> None:
        # Not in one session.run with the initializers: the NPU adapter would leave them at zero.
        net, first_step = self._runtime.net, self._runtime.step + self._meter.skipped
        self._runtime.session.run(net.iterator.initializer, {net.first_step: first_step})
