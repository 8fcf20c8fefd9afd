"""Verification of pairs of images at each measurement."""

from __future__ import annotations

from typing import Any

import numpy as np

from callbacks.base import Callback
from gitloss.data.pairs import Pairs
from gitloss.data.source import Source
from gitloss.errors import log
from gitloss.metrics import Metric
from gitloss.metrics.verification import pair_scores
from gitloss.metrics.verifying import verify

GROUP = 'verify'


class Verification(Callback):
    """Embeds the images of pairs and logs `verify_acc`, `verify_auc`, `verify_eer` and
    `verify_tar`, the TAR at a FAR. What is undefined is not logged.

    Args:
      pairs: the pairs.
      images: a Source of the images of the pairs, in the order of `pairs.names`.
      similarity: cosine or euclidean.
      far: of `verify_tar`.
    """

    metrics = (
        Metric('verify_acc', 'accuracy in folds', GROUP, True, '.4f', 'verify acc'),
        Metric('verify_auc', 'area under the ROC curve', GROUP, True, '.4f'),
        Metric('verify_eer', 'equal error rate', GROUP, False, '.4f', 'verify EER'),
        Metric('verify_tar', 'TAR at the FAR of --far', GROUP, True, '.4f'),
    )

    def __init__(
        self, pairs: Pairs, images: Source, similarity: str = 'cosine', far: float = 1e-3
    ) -> None:
        self._pairs, self._images = pairs, images
        self._similarity, self._far = similarity, far
        self._folds = pairs.split()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        try:
            logs.update(self._verified())
        except ValueError as error:  # of a network that gives NaN or nothing but zeros
            log.warning('no verification at step %d: %s', self.handle.step, error)

    def _verified(self) -> dict[str, float]:
        swept = self.handle.sweep(self._images, with_predictions=False)
        points = np.concatenate([batch[0] for batch in swept])
        first, second = points[self._pairs.first], points[self._pairs.second]
        scores, genuine = pair_scores(first, second, self._similarity), self._pairs.genuine
        result = verify(scores, genuine, self._folds, far=self._far, fars=())
        found = {
            'verify_acc': result['accuracy'],
            'verify_auc': result['auc'],
            'verify_eer': result['eer'],
            'verify_tar': result['calibration'] and result['calibration']['tar'],
        }
        return {name: value for name, value in found.items() if value is not None}
