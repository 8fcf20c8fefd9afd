"""The callbacks that draw, after measurements with made-up embeddings."""

import numpy as np

from callbacks.base import RunHandle
from callbacks.centers import CenterMeasurement
from callbacks.evaluation import Evaluation
from callbacks.figures import Figures
from callbacks.gradients import Gradients
from callbacks.history import History
from callbacks.pictures import Pictures
from gitloss.metrics import declaration
from helpers import Points
from trainers.engine.meter import Meter


class FakeHandle(RunHandle):
    num_classes, step = 3, 0
    metrics = declaration.by_name(
        Meter(('loss', 'git_loss', 'accuracy'), 16).metrics
        + [*Evaluation.metrics, *CenterMeasurement.metrics, *Gradients.metrics]
    )

    def __init__(self, run_dir):
        self.run_dir = str(run_dir)


def measured(tmp_path, steps=(5, 10, 15), dim=2, step=0, projection='pca'):
    """(a Pictures callback after measurements at `steps`, with embeddings that grow with the step;
    its history; the last logs).
    """
    random = np.random.RandomState(0)
    labels = (np.arange(60) % 3).astype(np.int32)
    evaluation, centers, history = (
        Evaluation(Points(None, labels)),
        CenterMeasurement(None),
        History(),
    )
    figures = Figures(evaluation, centers)
    pictures = Pictures(figures, history, projection)
    pictures.handle = figures.handle = FakeHandle(tmp_path)
    pictures.handle.step = step
    pictures.on_train_begin({})
    base = random.randn(3, dim)
    logs = {}
    for number, at in enumerate(steps, 1):
        evaluation.embeddings = (at * (base[labels] + 0.1 * random.randn(60, dim))).astype(
            np.float32
        )
        evaluation.predictions = evaluation.all_predictions = labels
        centers.means = at * base
        logs = {
            'step': at,
            'train_loss': 1.0 / at,
            'valid_loss': 1.1 / at,
            'valid_acc': 0.9,
            'inter_cls_dist': 1.0 * at,
            'intra_cls_dist': 0.1,
            'inter_over_intra': 10.0 * at,
            'gradient_softmax': 0.1 / at,
            'gradient_git': 0.01 / at,
            'cosine_softmax_git': -0.5,
        }
        history.rows.append(logs)
        figures.on_epoch_end(number, logs)
        pictures.on_epoch_end(number, logs)
    return pictures, history, logs
