"""Intra- and inter-class distances of the training set, by which Git loss is evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np

from callbacks.base import Callback
from callbacks.class_distances import DISTANCES, ERRORS, Classes, Sweeping, class_distances
from gitloss.data.source import Source
from gitloss.metrics import Metric

_SHOWN_CLASSES = 200  # in pictures: with a million means, each frame would take gigabytes


class CenterMeasurement(Callback):
    """Sweeps the training set at each measurement: class means, intra- and inter-class distance.

    Logs: `intra_cls_dist`, `inter_cls_dist` and, unless the former is 0, their ratio
    `inter_over_intra`; `intra_cls_dist_error`, `inter_cls_dist_error`, the standard errors of what
    is estimated; `inter_cls_dist_running`, the mean of `inter_cls_dist` over all measurements so
    far, called "inter" in the published tables; `centers_moved`, the fraction of classes whose
    center has moved.

    Args:
      source: a Source, the training set.
      init: "zero" does not change the initial centers, "means" sets them to the class means before
        the first step.
      reset: set the centers to the exact class means at each measurement.
      distance: with "cosine", centers are set to means of embeddings of length 1.
      samples: measure classes of at most so many samples; 0: all.

    Attributes:
      means: float64 [k, dim] of the latest measurement, of at most 200 classes; NaN for a class
        that was not measured; None before the first measurement.
    """

    metrics = (
        *DISTANCES,
        *ERRORS,
        Metric('inter_cls_dist_running', 'inter-class distance, running mean', 'distance', True),
        Metric('centers_moved', 'fraction of centers moved', 'centers'),
    )

    def __init__(
        self,
        source: Source,
        init: str = 'zero',
        reset: bool = False,
        distance: str = 'euclidean',
        samples: int = 0,
    ) -> None:
        self.means: Any = None
        self._source, self._init, self._reset = source, init, reset
        self._distance, self._samples = distance, samples
        self._inters: list[float] = []

    def _set_centers(self, classes: Classes) -> None:
        self.handle.set_centers(classes.numbers, classes.centers)

    def on_train_begin(self, logs: Any = None) -> None:
        if self._init == 'means' and self.handle.step == 0:
            sweeping = Sweeping(self.handle, self._distance, with_spreads=False)
            for classes in sweeping.classes(self._source, self.handle.num_classes):
                self._set_centers(classes)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        distances, self.means = class_distances(
            self.handle,
            self._source,
            self.handle.num_classes,
            self._samples,
            _SHOWN_CLASSES,
            self._distance,
            self._set_centers if self._reset else lambda classes: None,
        )
        self._inters.append(distances['inter_cls_dist'])
        logs.update(
            distances,
            inter_cls_dist_running=float(np.mean(self._inters)),
            centers_moved=self.handle.centers_moved(),
        )

    def state(self) -> Any:
        return list(self._inters)  # a copy: the measurement may still be aborted

    def load_state(self, state: Any) -> None:
        self._inters = [float(value) for value in state]
