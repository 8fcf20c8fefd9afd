"""A TensorBoard callback on made-up values, and what TensorBoard reads of its files."""

import numpy as np
from tensorboard.backend.event_processing import event_accumulator

from callbacks.base import RunHandle
from callbacks.centers import CenterMeasurement
from callbacks.evaluation import Evaluation
from callbacks.figures import Figures
from callbacks.tensorboard import TensorBoard
from gitloss.data import ArraySource
from gitloss.metrics import declaration
from trainers.engine.meter import Meter

CLASSES, COUNT = 4, 60


OPTIONS = {
    'head': 'softmax',
    'steps': 12,
    'learning_rate': 0.001,
    'evaluate': True,
    'freeze': '',
    'data_path': 'a|b <i>',
}


UNLIMITED = dict.fromkeys(
    (
        event_accumulator.SCALARS,
        event_accumulator.HISTOGRAMS,
        event_accumulator.IMAGES,
        event_accumulator.TENSORS,
    ),
    0,
)


class FakeHandle(RunHandle):
    num_classes, step, options = CLASSES, 0, OPTIONS
    metrics = declaration.by_name(
        Meter(('loss', 'git_loss', 'git_floor', 'center_drift', 'accuracy'), 16).metrics
        + [*Evaluation.metrics, *CenterMeasurement.metrics]
    )

    def __init__(self, run_dir, step=0):
        self.run_dir, self.step = str(run_dir), step


def begun(folder, step=0, pictures=True, dim=2, **settings):
    """A TensorBoard callback at the start of a run, or of a continued one, and the Evaluation it
    reads.
    """
    random = np.random.RandomState(0)
    labels = (np.arange(COUNT) % CLASSES).astype(np.int32)
    images = random.randint(0, 256, (COUNT, 8, 6, 1)).astype(np.uint8)
    evaluation, centers = Evaluation(ArraySource(images, labels)), CenterMeasurement(None)
    base = 3 * random.randn(CLASSES, dim)
    evaluation.embeddings = (base[labels] + 0.1 * random.randn(COUNT, dim)).astype(np.float32)
    evaluation.predictions = np.where(
        np.arange(COUNT) % 10 == 0, (labels + 1) % CLASSES, labels
    ).astype(np.int32)
    evaluation.all_predictions = evaluation.predictions
    centers.means = base
    figures = Figures(evaluation, centers)
    if pictures:
        settings.update(figures=figures)
    facts = {'versions': {'tensorflow': '2.21'}}
    callback = TensorBoard(OPTIONS, log_every=3, facts=facts, **settings)
    callback.handle = figures.handle = FakeHandle(folder, step)
    callback.on_train_begin({})
    return callback, evaluation


def logs_at(step):
    return {
        'step': step,
        'train_loss': 1.0 / step,
        'train_git_loss': 0.5,
        'train_git_floor': 0.25,
        'learning_rate': 0.001 * step,
        'valid_acc': 0.9,
        'inter_cls_dist': 6.0,
        'intra_cls_dist': 1.5,
        'inter_over_intra': 4.0,
        'inter_cls_dist_running': 5.0,
        'center_drift': 0.1,
        'centers_moved': 0.75,
        'images_per_sec': 1e3,
    }


def train(callback, first, last, every=4):
    """Runs steps first ... last with a measurement at every multiple of `every`. Returns the last
    logs.
    """
    logs = {}
    for step in range(first, last + 1):
        callback.handle.step = step
        callback.on_train_batch_end(
            step,
            {
                'loss': 10.0 / step,
                'accuracy': 0.5,
                'images_per_sec': 9.0,
                'norm': np.float32(2),
                'no_number': np.zeros(3),
                'flag': True,
            },
        )
        if step % every == 0:
            logs = logs_at(step)
            for one in (callback.figures, callback):
                if one is not None:
                    one.on_epoch_end(step // every, logs)
    return logs


def read(folder):
    accumulator = event_accumulator.EventAccumulator(
        str(folder), UNLIMITED, purge_orphaned_data=True
    )
    accumulator.Reload()
    return accumulator


def steps_of(accumulator):
    """{tag: steps} of everything with a step."""
    kinds = (
        (accumulator.Scalars, 'scalars'),
        (accumulator.Histograms, 'histograms'),
        (accumulator.Images, 'images'),
        (accumulator.Tensors, 'tensors'),
    )
    tags = accumulator.Tags()
    return {
        tag: [event.step for event in events(tag)] for events, kind in kinds for tag in tags[kind]
    }
