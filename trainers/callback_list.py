"""The callbacks of a run: one list; every hook calls them from top to bottom.

A callback for every run has its line here. Your own callback needs none:
`--callbacks=module:factory` inserts it at its place in the list.
"""

from __future__ import annotations

import os
from typing import Any, Sequence

from callbacks.base import Callback
from callbacks.centers import CenterMeasurement
from callbacks.checkpoint import Checkpoint
from callbacks.dataset import DatasetFiles
from callbacks.early_stopping import EarlyStopping
from callbacks.evaluation import Evaluation
from callbacks.figures import Figures
from callbacks.gradients import Gradients
from callbacks.guards import LossGuard
from callbacks.history import History
from callbacks.pictures import Pictures
from callbacks.progress import Progress
from callbacks.report import Report
from callbacks.tensorboard import TensorBoard
from callbacks.verification import Verification
from gitloss.data import Dataset
from gitloss.data.pair_images import open_images
from gitloss.data.pairs import read_pairs
from trainers import command, launch, plugins
from trainers.options import Options, device_id


def _measuring(
    options: Options, dataset: Any
) -> tuple[CenterMeasurement | None, Evaluation | None, Figures | None]:
    """What measures, and the Figures of it if there are validation images to draw."""
    if not options.evaluate:
        return None, None, None
    centers = CenterMeasurement(
        dataset.train,
        options.center_init,
        options.reset_centers,
        options.distance,
        options.measure_samples,
    )
    evaluation = Evaluation(dataset.valid, dataset.test, dataset.spec.num_classes)
    return centers, evaluation, Figures(evaluation, centers) if dataset.valid else None


def _verification(options: Options, dataset: Dataset) -> Verification | None:
    if not (options.evaluate and options.verify_pairs):
        return None
    pairs = read_pairs(options.verify_pairs)
    shape = tuple(dataset.spec.image_shape)
    images = open_images(pairs, options.verify_pairs, options.pairs_path, shape)
    return Verification(pairs, images, options.similarity, options.far)


def _tensorboard(options: Options, facts: dict[str, Any], figures: Figures | None) -> TensorBoard:
    per_call = options.iterations_per_loop
    return TensorBoard(
        log_every=-(-20 // per_call) * per_call,
        figures=figures,
        facts={'versions': dict(facts['versions'], device=facts['device'])},
        hparams=options.hyperparameters(),
        first=[name for name in os.environ.get(launch.FIRST_HPARAMS, '').split(',') if name],
    )


def build_callbacks(
    options: Options, dataset: Dataset, facts: dict[str, Any], header: Sequence[str], rank: int = 0
) -> list[Callback]:
    """The callbacks in their order. With --noevaluate none of them measures or draws.

    Args:
      facts: facts about the run for results.json, besides the metrics.
      header: the first lines of the run's log.
      rank: the rank of this worker, part of the name of its log.
    """
    log_file = f'train_{device_id()}{f".worker{rank}" if rank else ""}.log'
    history = History(facts, options.best, command.STARTED)
    centers, evaluation, figures = _measuring(options, dataset)
    callbacks = [
        DatasetFiles(dataset),
        # First: the others must not use a step that has diverged.
        LossGuard(options.max_loss, options.on_nan == 'rollback'),
        # They measure, and add to the logs that all callbacks below read.
        Gradients(),
        centers,
        evaluation,
        _verification(options, dataset),
        # The user's callbacks read the measurements; those below monitor, write and draw theirs.
        *plugins.load(options.callbacks, options),
        EarlyStopping(options.monitor, options.early_stopping) if options.early_stopping else None,
        # They show the measurement: its logs are complete here.
        figures,
        Progress(options.log_every, log_file, header),
        history,
        _tensorboard(options, facts, figures),
        centers and Pictures(figures, history, options.projection),
        # After all callbacks with a state: a run killed before repeats the whole measurement.
        Checkpoint(),
        # Only at the end of the run, from the files of the callbacks above.
        centers and Report(),
    ]
    return [callback for callback in callbacks if callback is not None]
