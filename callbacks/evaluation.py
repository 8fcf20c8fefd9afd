"""Loss and accuracy on images the training does not see."""
from __future__ import annotations

import numpy as np

from callbacks.base import Callback


def evaluate(handle, split):
    """One sweep. Returns ({'loss': ..., 'softmax_loss': ..., ..., 'acc': ...}, embeddings float32 [n, dim], predictions int [n]).

    The losses are means over the batches, each of the training's size, so that the git term means what it means in training;
    the accuracy is exact, padding left out.
    """
    embeddings, predictions, _, losses = zip(*handle.sweep(split, with_losses=True))
    embeddings, predictions = np.concatenate(embeddings), np.concatenate(predictions)
    result = {name: float(np.mean([batch[name] for batch in losses])) for name in losses[0]}
    result['acc'] = float(np.mean(predictions == split.labels))
    return result, embeddings, predictions


class Evaluation(Callback):
    """Evaluates a split at each measurement, and another one once, at the end of the training.

    Logs: `valid_loss`, `valid_softmax_loss`, ..., `valid_acc`, and at the end `test_loss` ... and `test_images`, their number.

    Args:
      split: evaluated at each measurement.
      final_split: evaluated at the end; None for none.
    """

    def __init__(self, split, final_split=None):
        self.embeddings = None   # float32 [n, dim] of the latest measurement
        self.predictions = None  # int [n] likewise
        self.images, self.labels = split.images, split.labels
        self._split, self._final_split = split, final_split

    def on_epoch_end(self, epoch, logs=None):
        result, self.embeddings, self.predictions = evaluate(self.handle, self._split)
        logs.update({'valid_' + key: value for key, value in result.items()})

    def on_train_end(self, logs=None):
        if self.embeddings is None:  # the run was continued at its end: no more was measured, yet there are pictures to draw
            _, self.embeddings, self.predictions = evaluate(self.handle, self._split)
        if self._final_split is not None:
            result, _, _ = evaluate(self.handle, self._final_split)
            logs.update({'test_' + key: value for key, value in result.items()}, test_images=len(self._final_split.labels))
