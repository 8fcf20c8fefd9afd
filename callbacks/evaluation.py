"""Loss and accuracy on images the training does not see."""

from __future__ import annotations

import numpy as np

from callbacks.base import Callback
from gitloss import metrics
from gitloss.metrics import Metric
from gitloss.metrics.declaration import accuracy, loss

_TERMS = ('softmax_loss', 'center_loss', 'git_loss')  # of the loss that a sweep gives
_KEPT = 2000  # embeddings; those of millions of samples would take gigabytes


def evaluate(handle, split, rows=()):
    """One sweep. Returns ({'loss': ..., 'softmax_loss': ..., ..., 'acc': ...}, embeddings float32
    [k, dim], predictions int [n]).

    The losses are means over the batches, each of the training's size, so that the git term means
    what it means in training; the accuracy is exact, padding left out. Embeddings are kept of the k
    samples with the numbers `rows`, which must rise.
    """
    rows, embeddings, predictions, losses, start = np.asarray(rows, np.int64), [], [], [], 0
    for points, guesses, _, batch_losses in handle.sweep(split, with_losses=True):
        first, last = np.searchsorted(rows, (start, start + len(guesses)))
        embeddings.append(points[rows[first:last] - start])
        predictions.append(guesses)
        losses.append(batch_losses)
        start += len(guesses)
    predictions = np.concatenate(predictions)
    result = {name: float(np.mean([batch[name] for batch in losses])) for name in losses[0]}
    result['acc'] = float(np.mean(predictions == split.labels))
    return result, np.concatenate(embeddings), predictions


class Evaluation(Callback):
    """Evaluates a split at each measurement, and another one once, at the end of the training.

    Logs: `valid_loss`, `valid_softmax_loss`, ..., `valid_acc`, and at the end `test_loss` ... and
    `test_images`, their number. For pictures it holds, of the latest measurement, `embeddings`
    float32 [k, dim], `labels` and `predictions` int [k] of the samples `numbers` int [k], 2000 at
    most and evenly spread; `all_labels` and `all_predictions` of the whole split, and its `source`.

    Args:
      split: a Source, evaluated at each measurement.
      final_split: one evaluated at the end; None for none.
    """

    metrics = (
        *(loss(group, name) for group in ('valid', 'test') for name in ('loss', *_TERMS)),
        *(accuracy(group) for group in ('valid', 'test')),
        Metric('test_images', 'images', 'test', form=','),
    )

    def __init__(self, split, final_split=None):
        self.source, self.all_labels = split, split.labels
        self.numbers = metrics.evenly_spaced(len(split.labels), _KEPT)
        self.labels = self.all_labels[self.numbers]
        self.embeddings = self.predictions = self.all_predictions = None
        self._final_split = final_split

    def _evaluate(self):
        result, self.embeddings, self.all_predictions = evaluate(
            self.handle, self.source, self.numbers
        )
        self.predictions = self.all_predictions[self.numbers]
        return result

    def on_epoch_end(self, epoch, logs=None):
        logs.update({'valid_' + key: value for key, value in self._evaluate().items()})

    def on_train_end(self, logs=None):
        if (
            self.embeddings is None
        ):  # the run was continued at its end: no more was measured, yet there are pictures to draw
            self._evaluate()
        if self._final_split is not None:
            result, _, _ = evaluate(self.handle, self._final_split)
            logs.update(
                {'test_' + key: value for key, value in result.items()},
                test_images=len(self._final_split.labels),
            )
