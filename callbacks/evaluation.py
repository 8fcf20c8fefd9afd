"""Loss and accuracy on images the training does not see."""
from __future__ import annotations

import numpy as np

from callbacks.base import Callback


def evaluate(handle, split):
    """One sweep. Returns ({'loss': ..., 'softmax_loss': ..., ..., 'acc': ...}, embeddings float32 [n, dim], predictions int [n]).

    The losses are means over the batches, each of the training's size, so that the git term means what it means in training;
    the accuracy is exact, padding left out.
    """
    embeddings, losses, guesses = [], [], []
    for vectors, predictions, _, batch_losses in handle.sweep(split, with_losses=True):
        embeddings.append(vectors)
        losses.append(batch_losses)
        guesses.append(predictions)
    result = {name: float(np.mean([batch[name] for batch in losses])) for name in losses[0]}
    guesses = np.concatenate(guesses)
    result['acc'] = float(np.mean(guesses == split.labels))
    return result, np.concatenate(embeddings), guesses


class Evaluation(Callback):
    """Evaluates a split at each measurement, and another one once, at the end of the training.

    Logs: `<name>_loss`, `<name>_softmax_loss`, ..., `<name>_acc` for both.

    Args:
      split: evaluated at each measurement, as `name`.
      final_split: evaluated at the end, as `final_name`; None for none.
    """

    def __init__(self, split, name='valid', final_split=None, final_name='test'):
        self.embeddings = None   # float32 [n, dim] of the latest measurement
        self.predictions = None  # int [n] likewise
        self.images, self.labels = split.images, split.labels
        self._split, self._name, self._final_split, self._final_name = split, name, final_split, final_name

    def on_epoch_end(self, epoch, logs=None):
        result, self.embeddings, self.predictions = evaluate(self.handle, self._split)
        logs.update({'%s_%s' % (self._name, key): value for key, value in result.items()})

    def on_train_end(self, logs=None):
        if self.embeddings is None:  # the run was continued at its end: no more was measured, yet there are pictures to draw
            _, self.embeddings, self.predictions = evaluate(self.handle, self._split)
        if self._final_split is not None:
            result, _, _ = evaluate(self.handle, self._final_split)
            result['images'] = len(self._final_split.labels)
            logs.update({'%s_%s' % (self._final_name, key): value for key, value in result.items()})
