"""The callbacks of a run: one list, read from top to bottom at every hook.

A callback of the project that every run is to have gets its line here; one of your own needs none:
`--callbacks=module:factory` puts it where the list says.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from callbacks.base import Callback
from callbacks.centers import CenterMeasurement
from callbacks.checkpoint import Checkpoint
from callbacks.evaluation import Evaluation
from callbacks.guards import LossGuard
from callbacks.history import History
from callbacks.pictures import Pictures
from callbacks.progress import Progress
from callbacks.report import Report
from callbacks.tensorboard import TensorBoard
from gitloss.backend import keras
from gitloss.data import Dataset
from trainers import command, plugins
from trainers.options import Options, device_id


def early_stopping(options: Options) -> list[Any]:
    """Keras's EarlyStopping if --early_stopping is set, else nothing."""
    if not options.early_stopping:
        return []
    larger_is_better = 'acc' in options.monitor or options.monitor.startswith('inter_')
    patience, mode = options.early_stopping, 'max' if larger_is_better else 'min'
    return [keras.callbacks.EarlyStopping(options.monitor, patience=patience, mode=mode)]


def _measurements(
    options: Options, dataset: Dataset
) -> tuple[CenterMeasurement | None, Evaluation | None]:
    if not options.evaluate:
        return None, None
    how = options.center_init, options.reset_centers, options.distance
    return CenterMeasurement(dataset.train, *how), Evaluation(dataset.valid, dataset.test)


def _tensorboard(
    options: Options, facts: Mapping[str, Any], centers: Any, evaluation: Any
) -> TensorBoard:
    per_call = options.iterations_per_loop
    made_by = dict(facts['versions'], device=facts['device'])
    return TensorBoard(
        log_every=-(-20 // per_call) * per_call,
        evaluation=evaluation,
        centers=centers,
        facts={'versions': made_by},
        hparams=options.hyperparameters(),
    )


def build_callbacks(
    options: Options,
    dataset: Dataset,
    facts: Mapping[str, Any],
    header: Sequence[str],
    rank: int = 0,
) -> list[Callback]:
    """The list, in its order. With --noevaluate nothing measures, and nothing draws.

    Args:
      facts: what results.json says of the run beside the metrics.
      header: lines that the run's log begins with.
      rank: of this worker, whose log bears it in its name.
    """
    log_file = f'train_{device_id()}{f".worker{rank}" if rank else ""}.log'
    history = History(facts, started=command.STARTED)
    centers, evaluation = _measurements(options, dataset)
    callbacks = [
        # First of all: nothing is made of a step that has gone wrong.
        LossGuard(options.max_loss, options.on_nan == 'rollback'),
        # They measure: what they put into the logs is there for all callbacks below.
        centers,
        evaluation,
        # Yours see the measurements; what they log is watched, written and drawn below.
        *plugins.load(options.callbacks, options),
        *early_stopping(options),
        # They write the logs, which are complete by now.
        Progress(options.log_every, log_file, header),
        history,
        _tensorboard(options, facts, centers, evaluation),
        Pictures(evaluation, centers, history, options.projection) if options.evaluate else None,
        # Last of all that have a state: the checkpoint holds what they made of the measurement, and
        # a run that is killed before it makes all of the measurement again.
        Checkpoint(),
        # At the end of the run only, from the files of those above.
        Report() if options.evaluate else None,
    ]
    return [callback for callback in callbacks if callback is not None]
