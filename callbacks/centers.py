"""The measurement Git loss is judged by: do classes pull together and stay apart?"""
from __future__ import annotations

import numpy as np

from callbacks.base import Callback
from gitloss import metrics


class CenterMeasurement(Callback):
    """At each measurement sweeps the training set: class means, intra- and inter-class distance.

    Logs: `intra_cls_dist` and `inter_cls_dist` of now, and `inter_cls_dist_running`, the mean over all measurements so far, which
    is what the published tables call "inter".

    Args:
      split: the training set.
    """

    def __init__(self, split):
        self.means = None       # float64 [classes, dim] of the latest measurement, NaN where a class has no sample
        self._split = split
        self._inters = []

    def on_epoch_end(self, epoch, logs=None):
        batches = [(embeddings, labels) for embeddings, _, labels, _ in self.handle.sweep(self._split)]
        embeddings, labels = (np.concatenate(parts) for parts in zip(*batches))
        means, counts = metrics.class_means(embeddings, labels, self.handle.num_classes)
        self.means = np.where(counts[:, None] > 0, means, np.nan)
        self._inters.append(metrics.inter_class_distance(means, counts))
        logs['intra_cls_dist'] = metrics.intra_class_distance(embeddings, labels, means)
        logs['inter_cls_dist'] = self._inters[-1]
        logs['inter_cls_dist_running'] = float(np.mean(self._inters))

    def state(self):
        return self._inters

    def load_state(self, state):
        self._inters = list(state)
