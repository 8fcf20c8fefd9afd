"""Intra- and inter-class distances of the training set, by which Git loss is evaluated."""

from __future__ import annotations

from typing import Any, Iterable

import numpy as np

from callbacks.base import Callback, Handle
from gitloss import metrics
from gitloss.data.source import Source
from gitloss.metrics import ClassSums, Metric

# Embeddings up to this many bytes stay in memory for the second pass, which needs the class means.
# Larger ones are computed again, so that memory is O(classes x dim) for data sets of any size.
KEPT_BYTES = 256 << 20
# What `class_distances` computes.
DISTANCES = (
    Metric('inter_cls_dist', 'inter-class distance', 'distance', True, label='inter'),
    Metric('intra_cls_dist', 'intra-class distance', 'distance', False, label='intra'),
    Metric('inter_over_intra', 'inter / intra', 'distance', True),
)
_SHOWN_CLASSES = 200  # in pictures: with a million means, each frame would take gigabytes


def _batches(handle: Handle, source: Source) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    return ((embeddings, labels) for embeddings, _, labels, _ in handle.sweep(source))


def class_sums(
    handle: Handle, source: Source, num_classes: int, distance: str = 'euclidean'
) -> tuple[ClassSums, ClassSums, list[tuple[np.ndarray, np.ndarray]]]:
    """Sums of a Source per class, in one sweep.

    Returns:
      (ClassSums of the embeddings, ClassSums whose means are centers, the batches or, if they take
      more than KEPT_BYTES, none). With distance "cosine", centers are means of embeddings of length
      1.
    """
    sums = ClassSums(num_classes)
    for_centers = ClassSums(num_classes) if distance == 'cosine' else sums
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for embeddings, labels in _batches(handle, source):
        sums.add(embeddings, labels)
        if for_centers is not sums:
            norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
            for_centers.add(embeddings / np.maximum(norms, 1e-12), labels)
        if embeddings[0].nbytes * len(source.labels) <= KEPT_BYTES:
            kept.append((embeddings, labels))
    return sums, for_centers, kept


def class_distances(
    handle: Handle, source: Source, num_classes: int, distance: str = 'euclidean'
) -> tuple[dict[str, float], ClassSums, ClassSums]:
    """Euclidean distances within and between the classes of a Source.

    Classes without samples do not count.

    Args:
      handle: computes one sweep, or two if the embeddings take more than KEPT_BYTES.
      source: the Source.
      num_classes: number of classes.
      distance: as in class_sums.

    Returns:
      ({`intra_cls_dist`, `inter_cls_dist` and, unless the former is 0, their ratio
      `inter_over_intra`}, both ClassSums of class_sums).
    """
    sums, for_centers, kept = class_sums(handle, source, num_classes, distance)
    means = sums.means()
    intra = metrics.intra_class_distance(kept or _batches(handle, source), means)
    inter = metrics.inter_class_distance(means, sums.counts)
    ratio = {'inter_over_intra': inter / intra} if intra > 0 else {}
    return {'intra_cls_dist': intra, 'inter_cls_dist': inter, **ratio}, sums, for_centers


class CenterMeasurement(Callback):
    """Sweeps the training set at each measurement: class means, intra- and inter-class distance.

    Logs: `intra_cls_dist`, `inter_cls_dist` and, unless the former is 0, their ratio
    `inter_over_intra`; `inter_cls_dist_running`, the mean of `inter_cls_dist` over all measurements
    so far, called "inter" in the published tables; `centers_moved`, the fraction of classes whose
    center has moved.

    Args:
      source: a Source, the training set.
      init: "zero" does not change the initial centers, "means" sets them to the class means before
        the first step.
      reset: set the centers to the exact class means at each measurement.
      distance: with "cosine", centers are set to means of embeddings of length 1.

    Attributes:
      means: float64 [k, dim] of the latest measurement, of at most 200 classes; NaN for a class
        without samples; None before the first measurement.
    """

    metrics = (
        *DISTANCES,
        Metric('inter_cls_dist_running', 'inter-class distance, running mean', 'distance', True),
        Metric('centers_moved', 'fraction of centers moved', 'centers'),
    )

    def __init__(
        self, source: Source, init: str = 'zero', reset: bool = False, distance: str = 'euclidean'
    ) -> None:
        self.means: Any = None
        self._source, self._init, self._reset, self._distance = source, init, reset, distance
        self._inters: list[float] = []

    def _set_centers(self, sums: ClassSums) -> None:
        self.handle.set_centers(
            np.where(sums.counts[:, None] > 0, sums.means(), self.handle.centers())
        )

    def on_train_begin(self, logs: Any = None) -> None:
        if self._init == 'means' and self.handle.step == 0:
            self._set_centers(
                class_sums(self.handle, self._source, self.handle.num_classes, self._distance)[1]
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        distances, sums, for_centers = class_distances(
            self.handle, self._source, self.handle.num_classes, self._distance
        )
        means = sums.means()
        shown = metrics.evenly_spaced(len(means), _SHOWN_CLASSES)
        self.means = np.where(sums.counts[shown, None] > 0, means[shown], np.nan)
        self._inters.append(distances['inter_cls_dist'])
        logs.update(
            distances,
            inter_cls_dist_running=float(np.mean(self._inters)),
            centers_moved=float(np.mean(self.handle.center_updates() > 0)),
        )
        if self._reset:
            self._set_centers(for_centers)

    def state(self) -> Any:
        return list(self._inters)  # a copy: the measurement may still be aborted

    def load_state(self, state: Any) -> None:
        self._inters = [float(value) for value in state]
