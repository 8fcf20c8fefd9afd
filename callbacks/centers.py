"""The measurement Git loss is judged by: do classes pull together and stay apart?"""

from __future__ import annotations

import numpy as np

from callbacks.base import Callback
from gitloss import metrics
from gitloss.metrics import Metric

# Embeddings up to this many bytes are kept for the second pass, which needs the means of the
# first; more are computed again, so that memory stays O(classes x dim) for data sets of any size.
KEPT_BYTES = 256 << 20
_SHOWN_CLASSES = 200  # in pictures: of a million means each frame would take gigabytes


def _batches(handle, source):
    return ((embeddings, labels) for embeddings, _, labels, _ in handle.sweep(source))


def class_sums(handle, source, num_classes, distance='euclidean', keep=0):
    """Sweeps a Source: (ClassSums of the embeddings, ClassSums of what centers are means of, the
    batches as a list if they take at most `keep` bytes, else None). With distance "cosine" centers
    are means of embeddings of length 1.
    """
    sums = metrics.ClassSums(num_classes)
    for_centers = metrics.ClassSums(num_classes) if distance == 'cosine' else sums
    kept, size = [], 0
    for embeddings, labels in _batches(handle, source):
        sums.add(embeddings, labels)
        if for_centers is not sums:
            norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
            for_centers.add(embeddings / np.maximum(norms, 1e-12), labels)
        size += embeddings.nbytes
        if size <= keep:
            kept.append((embeddings, labels))
        else:
            kept.clear()
    return sums, for_centers, kept if size <= keep else None


def class_distances(handle, source, num_classes, distance='euclidean'):
    """Euclidean distances within and between the classes of a Source that have samples.

    Args:
      handle: gives the sweep, or two where the embeddings take more than KEPT_BYTES.
      source: the Source.
      num_classes: its labels are below it.
      distance: as in class_sums.

    Returns:
      ({`intra_cls_dist`, `inter_cls_dist` and, unless the former is 0, their ratio
      `inter_over_intra`}, both ClassSums of class_sums).
    """
    sums, for_centers, kept = class_sums(handle, source, num_classes, distance, KEPT_BYTES)
    means = sums.means()
    batches = _batches(handle, source) if kept is None else kept
    intra = metrics.intra_class_distance(batches, means)
    inter = metrics.inter_class_distance(means, sums.counts)
    found = {'intra_cls_dist': intra, 'inter_cls_dist': inter}
    if intra > 0:
        found['inter_over_intra'] = inter / intra
    return found, sums, for_centers


class CenterMeasurement(Callback):
    """At each measurement sweeps the training set: class means, intra- and inter-class distance.

    Logs: `intra_cls_dist`, `inter_cls_dist` and, unless the former is 0, their ratio
    `inter_over_intra` of now; `inter_cls_dist_running`, the mean over all measurements so far,
    which is what the published tables call "inter"; `centers_moved`, the fraction of classes whose
    center has ever moved.

    Args:
      split: a Source, the training set.
      init: "zero" leaves the first centers alone, "means" sets them to the class means of a sweep
        before the first step.
      reset: set the centers to the exact class means at each measurement.
      distance: "cosine" takes the means for the centers over embeddings of length 1.
    """

    metrics = (
        Metric('inter_cls_dist', 'inter-class distance', 'distance', True, label='inter'),
        Metric('intra_cls_dist', 'intra-class distance', 'distance', False, label='intra'),
        Metric('inter_over_intra', 'inter / intra', 'distance', True),
        Metric('inter_cls_dist_running', 'inter-class distance, running mean', 'distance', True),
        Metric('centers_moved', 'share of centers moved', 'centers'),
    )

    def __init__(self, split, init='zero', reset=False, distance='euclidean'):
        # float64 [k, dim] of the latest measurement, of 200 classes at most; NaN where one has no
        # sample
        self.means = None
        self._split, self._init, self._reset, self._distance = split, init, reset, distance
        self._inters = []

    def _swept(self):
        return self.handle, self._split, self.handle.num_classes, self._distance

    def _set_centers(self, sums):
        self.handle.set_centers(
            np.where(sums.counts[:, None] > 0, sums.means(), self.handle.centers())
        )

    def on_train_begin(self, logs=None):
        if self._init == 'means' and self.handle.step == 0:
            _, for_centers, _ = class_sums(*self._swept())
            self._set_centers(for_centers)

    def on_epoch_end(self, epoch, logs=None):
        distances, sums, for_centers = class_distances(*self._swept())
        means = sums.means()
        shown = metrics.evenly_spaced(len(means), _SHOWN_CLASSES)
        self.means = np.where(sums.counts[shown, None] > 0, means[shown], np.nan)
        self._inters.append(distances['inter_cls_dist'])
        logs.update(distances)
        logs['inter_cls_dist_running'] = float(np.mean(self._inters))
        logs['centers_moved'] = float(np.mean(self.handle.center_updates() > 0))
        if self._reset:
            self._set_centers(for_centers)

    def state(self):
        return list(self._inters)  # as it is now: a measurement may yet be broken off

    def load_state(self, state):
        self._inters = [float(value) for value in state]
