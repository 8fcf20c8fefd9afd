"""The measurement Git loss is judged by: do classes pull together and stay apart?"""
from __future__ import annotations

import numpy as np

from callbacks.base import Callback
from gitloss import metrics


class CenterMeasurement(Callback):
    """At each measurement sweeps the training set: class means, intra- and inter-class distance.

    Logs: `intra_cls_dist` and `inter_cls_dist` of now; `inter_cls_dist_running`, the mean over all measurements so far, which is
    what the published tables call "inter"; `centers_moved`, the fraction of classes whose center has ever moved.

    Args:
      split: the training set.
      init: "zero" leaves the first centers alone, "means" sets them to the class means of a sweep before the first step.
      reset: set the centers to the exact class means at each measurement.
      distance: "cosine" takes the means for the centers over embeddings of length 1.
    """

    def __init__(self, split, init='zero', reset=False, distance='euclidean'):
        self.means = None       # float64 [classes, dim] of the latest measurement, NaN where a class has no sample
        self._split, self._init, self._reset, self._distance = split, init, reset, distance
        self._inters = []

    def _sweep(self):
        batches = [(embeddings, labels) for embeddings, _, labels, _ in self.handle.sweep(self._split)]
        return tuple(np.concatenate(parts) for parts in zip(*batches))

    def _set_centers(self, embeddings, labels):
        if self._distance == 'cosine':
            embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        means, counts = metrics.class_means(embeddings, labels, self.handle.num_classes)
        self.handle.set_centers(np.where(counts[:, None] > 0, means, self.handle.centers()))

    def on_train_begin(self, logs=None):
        if self._init == 'means' and self.handle.step == 0:
            self._set_centers(*self._sweep())

    def on_epoch_end(self, epoch, logs=None):
        embeddings, labels = self._sweep()
        means, counts = metrics.class_means(embeddings, labels, self.handle.num_classes)
        self.means = np.where(counts[:, None] > 0, means, np.nan)
        self._inters.append(metrics.inter_class_distance(means, counts))
        logs['intra_cls_dist'] = metrics.intra_class_distance(embeddings, labels, means)
        logs['inter_cls_dist'] = self._inters[-1]
        logs['inter_cls_dist_running'] = float(np.mean(self._inters))
        logs['centers_moved'] = float(np.mean(self.handle.center_updates() > 0))
        if self._reset:
            self._set_centers(embeddings, labels)

    def state(self):
        return list(self._inters)  # as it is now: a measurement may yet be broken off

    def load_state(self, state):
        self._inters = [float(value) for value in state]
