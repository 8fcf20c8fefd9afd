"""The callbacks of a run: one list, read from top to bottom at every hook.

A callback of the project that every run is to have gets its line here; one of your own needs none:
`--callbacks=module:factory` puts it where the list says.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from callbacks.base import Callback
from callbacks.centers import CenterMeasurement
from callbacks.checkpoint import Checkpoint
from callbacks.early_stopping import EarlyStopping
from callbacks.evaluation import Evaluation
from callbacks.figures import Figures
from callbacks.guards import LossGuard
from callbacks.history import History
from callbacks.pictures import Pictures
from callbacks.progress import Progress
from callbacks.report import Report
from callbacks.tensorboard import TensorBoard
from gitloss.data import Dataset
from trainers import command, plugins
from trainers.options import Options, device_id


def _figures(options: Options, dataset: Any) -> Figures:
    how = options.center_init, options.reset_centers, options.distance
    evaluation = Evaluation(dataset.valid, final_source=dataset.test)
    return Figures(evaluation, CenterMeasurement(dataset.train, *how))


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
    per_call = options.iterations_per_loop
    history = History(facts, options.best, command.STARTED)
    figures = _figures(options, dataset) if options.evaluate else None
    callbacks = [
        # First of all: nothing is made of a step that has gone wrong.
        LossGuard(options.max_loss, options.on_nan == 'rollback'),
        # They measure: what they put into the logs is there for all callbacks below.
        figures and figures.centers,
        figures and figures.evaluation,
        # Yours see the measurements; what they log is watched, written and drawn below.
        *plugins.load(options.callbacks, options),
        EarlyStopping(options.monitor, options.early_stopping) if options.early_stopping else None,
        # They show the measurement, whose logs are complete by now.
        figures,
        Progress(options.log_every, log_file, header),
        history,
        TensorBoard(
            log_every=-(-20 // per_call) * per_call,
            figures=figures,
            facts={'versions': dict(facts['versions'], device=facts['device'])},
            hparams=options.hyperparameters(),
        ),
        figures and Pictures(figures, history, options.projection),
        # Last of all that have a state: the checkpoint holds what they made of the measurement, and
        # a run that is killed before it makes all of the measurement again.
        Checkpoint(),
        # At the end of the run only, from the files of those above.
        figures and Report(),
    ]
    return [callback for callback in callbacks if callback is not None]
