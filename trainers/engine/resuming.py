"""The start of a run: at its own checkpoint, at the weights of another run, or at step 0; and the
way back to its last checkpoint.
"""

from __future__ import annotations

from callbacks.list import CallbackList
from gitloss.errors import Diverged, TrainingError, log
from trainers import checkpoints
from trainers.checkpoints import rundir
from trainers.engine.training import TrainingRuntime


def start(runtime: TrainingRuntime, callbacks: CallbackList) -> None:
    """Claims the folder of the run. Restores the run found there, or loads --init_checkpoint.

    Raises:
      ValueError: the folder cannot be used, or the run found in it is another one.
    """
    checkpoint = _claim(runtime)
    if checkpoint is None:
        _load_initial(runtime)
        _broadcast(runtime)
    else:
        restore(runtime, callbacks, checkpoint)
        is_done = runtime.step >= runtime.steps
        log.info(
            'continuing at step %d of %d from %s%s',
            runtime.step,
            runtime.steps,
            checkpoint.path,
            '; all steps are done, --resume=never starts a new run' if is_done else '',
        )
    runtime.warm_start = None  # lets its checkpoint go


def _load_initial(runtime: TrainingRuntime) -> None:
    """The weights of --init_checkpoint, from which all workers take their shards."""
    warm_start = runtime.warm_start
    if warm_start is not None:
        warm_start.restore(runtime.session)
    if runtime.net.shards and runtime.settings.init_checkpoint:
        names = runtime.group.decide(runtime.session, lambda: warm_start and warm_start.shards)
        checkpoint = warm_start.checkpoint if warm_start else None
        checkpoints.restore_shards(runtime.session, runtime.saving.saver, checkpoint, names)


def _claim(runtime: TrainingRuntime) -> checkpoints.Checkpoint | None:
    """The chief claims the folder and chooses the checkpoint to continue. The other workers compare
    their flags and data with the chief's, and receive the manifest.
    """
    folder = runtime.folder
    facts = [runtime.saving.facts[name] for name in ('options', 'dataset')]
    *chiefs, found = runtime.group.decide(
        runtime.session,
        lambda: [*facts, folder.begin(runtime.settings.resume, runtime.saving.store, *facts)],
    )
    if not runtime.is_chief:
        folder.enter()
        rundir.check_worker(runtime.rank, facts, chiefs)
    return found and checkpoints.Checkpoint(*found)


def roll_back(runtime: TrainingRuntime, callbacks: CallbackList, error: Diverged) -> None:
    """Restores the last checkpoint, with a smaller learning rate, if the error allows it.

    Raises:
      TrainingError: it does not, or there is no checkpoint.
    """
    if not error.rate_factor:
        raise TrainingError(str(error))
    # The newest whole one of the chief, for all workers.
    found = runtime.group.decide(
        runtime.session, lambda: runtime.saving.store.newest(checkpoints.TO_CONTINUE)
    )
    if found is None:
        raise TrainingError(f'{error}; there is no checkpoint to go back to')
    rate = runtime.learning_rate * error.rate_factor
    restore(runtime, callbacks, checkpoints.Checkpoint(*found))
    runtime.learning_rate = rate
    callbacks.run('on_rewind', runtime.step)
    log.warning('%s; back to step %d, learning rate now %g', error, runtime.step, rate)


def restore(
    runtime: TrainingRuntime, callbacks: CallbackList, checkpoint: checkpoints.Checkpoint
) -> None:
    """Restores a run: sums, states of the callbacks, variables, step, position in the batches.

    Raises:
      DamagedCheckpoint: the checkpoint is of another kind of run.
    """
    runtime.meter.load(checkpoint)
    callbacks.load_state(checkpoint.manifest['callbacks'], checkpoint.path)
    if runtime.is_chief:
        checkpoints.restore(runtime.session, runtime.saving.saver, checkpoint)
    checkpoints.restore_shards(runtime.session, runtime.saving.saver, checkpoint)
    runtime.reach(checkpoint.step, before=checkpoint.step)
    runtime.saving.saved_step = runtime.saving.tried_step = checkpoint.step
    _broadcast(runtime)


def _broadcast(runtime: TrainingRuntime) -> None:
    """Gives all workers the chief's variables, and starts the batches of the next step."""
    runtime.group.broadcast_variables(runtime.session)
    # Not in one session.run with the initializers: the NPU adapter would leave them at zero.
    position = {runtime.net.first_step: runtime.step + runtime.meter.skipped}
    runtime.session.run(runtime.net.iterator.initializer, position)
