"""Pictures of the embeddings while they form."""
from __future__ import annotations

import os

from callbacks.base import Callback, log
from gitloss import plots


class Pictures(Callback):
    """`plots/scatter-<step>.png` at each measurement: validation embeddings, and the class means of the training set.

    A failing plot warns once and never stops the training.

    Args:
      evaluation: the callback that holds `embeddings` and `labels` of the measurement.
      centers: the callback that holds the class `means`.
    """

    def __init__(self, evaluation, centers):
        self._evaluation, self._centers = evaluation, centers
        self._warned = False

    def on_epoch_end(self, epoch, logs=None):
        try:
            folder = os.path.join(self.handle.run_dir, 'plots')
            os.makedirs(folder, exist_ok=True)
            title = 'step %d   valid acc %.4f   inter %.2f   intra %.2f' % (
                logs['step'], logs['valid_acc'], logs['inter_cls_dist'], logs['intra_cls_dist'])
            figure = plots.scatter(self._evaluation.embeddings, self._evaluation.labels, self._centers.means, title)
            plots.save_png(figure, os.path.join(folder, 'scatter-%06d.png' % logs['step']))
        except Exception as error:  # noqa: BLE001 - a picture is never worth a run
            if not self._warned:
                log.warning('no picture at step %d: %s', logs['step'], error)
            self._warned = True
