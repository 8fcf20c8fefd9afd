"""The measurement Git loss is judged by: do classes pull together and stay apart?"""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np

from callbacks.base import Callback, Handle
from gitloss import metrics
from gitloss.data.source import Source
from gitloss.metrics import ClassSums, Metric

# The second pass needs the means of the first. Embeddings up to this many bytes are kept for it,
# more are computed again: memory stays O(classes x dim) for data sets of any size.
KEPT_BYTES = 256 << 20
_SHOWN_CLASSES = 200  # in pictures: a million means would make each frame gigabytes

Batches = Iterator[Any]  # (embeddings float32 [n, dim], labels int32 [n]) each


def _batches(handle: Handle, source: Source) -> Batches:
    return ((embeddings, labels) for embeddings, _, labels, _ in handle.sweep(source))


def class_sums(
    handle: Handle, source: Source, num_classes: int, distance: str = 'euclidean', keep: int = 0
) -> tuple[ClassSums, ClassSums, list | None]:
    """Sums the embeddings of a source by class, in one sweep.

    Args:
      handle: gives the sweep.
      source: the source.
      num_classes: its labels are below it.
      distance: "cosine": centers are means of embeddings of length 1.
      keep: bytes of embeddings to keep.

    Returns:
      (sums of the embeddings, sums of what the centers are means of, all batches as a list if they
      take at most `keep` bytes, else None).
    """
    sums = ClassSums(num_classes)
    for_centers = ClassSums(num_classes) if distance == 'cosine' else sums
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


def class_distances(
    handle: Handle, source: Source, num_classes: int, distance: str = 'euclidean'
) -> tuple[dict[str, float], ClassSums, ClassSums]:
    """Euclidean distances within and between the classes of a source that have samples.

    Args:
      handle: gives the sweep, or two if the embeddings take more than KEPT_BYTES.
      source, num_classes, distance: as in class_sums.

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
    """Measures the class means and distances of the training set, in a sweep.

    Logs: `intra_cls_dist`, `inter_cls_dist` and, unless the former is 0, their ratio
    `inter_over_intra`; `inter_cls_dist_running`, the mean of `inter_cls_dist` over all
    measurements so far, which the published tables call "inter"; `centers_moved`, the share of
    classes whose center has ever moved.

    Args:
      source: the training set.
      init: "zero" leaves the first centers alone, "means" sets them to the class means of a sweep
        before the first step.
      reset: set the centers to the exact class means at each measurement.
      distance: "cosine": the centers are means of embeddings of length 1.

    Attributes:
      means: float64 [k, dim], class means at the latest measurement, of at most 200 classes, evenly
        spaced; NaN for a class without samples. None before.
    """

    metrics = (
        Metric('inter_cls_dist', 'inter-class distance', 'distance', True, label='inter'),
        Metric('intra_cls_dist', 'intra-class distance', 'distance', False, label='intra'),
        Metric('inter_over_intra', 'inter / intra', 'distance', True),
        Metric('inter_cls_dist_running', 'inter-class distance, running mean', 'distance', True),
        Metric('centers_moved', 'share of centers moved', 'centers'),
    )

    def __init__(
        self,
        source: Source,
        init: str = 'zero',
        reset: bool = False,
        distance: str = 'euclidean',
    ) -> None:
        self.means: Any = None
        self._source, self._init, self._reset, self._distance = source, init, reset, distance
        self._inters: list[float] = []

    def _swept(self):
        return self.handle, self._source, self.handle.num_classes, self._distance

    def _set_centers(self, sums):
        self.handle.set_centers(
            np.where(sums.counts[:, None] > 0, sums.means(), self.handle.centers())
        )

    def on_train_begin(self, logs: Any = None) -> None:
        if self._init == 'means' and self.handle.step == 0:
            _, for_centers, _ = class_sums(*self._swept())
            self._set_centers(for_centers)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
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

    def state(self) -> Any:
        return list(self._inters)  # a copy: a measurement that fails later must not change it

    def load_state(self, state: Any) -> None:
        self._inters = [float(value) for value in state]
