"""Loss and accuracy on images the training does not see."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from callbacks.base import Callback, Handle
from gitloss import metrics
from gitloss.data.source import Source
from gitloss.metrics import Metric
from gitloss.metrics.declaration import accuracy, loss

_LOSSES = ('loss', 'softmax_loss', 'center_loss', 'git_loss')  # of a sweep
_KEPT = 2000  # embeddings: those of millions of samples would take gigabytes


def evaluate(
    handle: Handle, source: Source, rows: Sequence[int] | np.ndarray = ()
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Evaluates a source in one sweep.

    Args:
      handle: gives the sweep.
      source: the images and labels.
      rows: indices of the k samples whose embeddings are kept, rising.

    Returns:
      (values, embeddings float32 [k, dim], predictions int [n]). The values are `loss`,
      `softmax_loss` ... and `acc`: the losses are means over batches of the training's size, so
      that the git term means what it means there; the accuracy is exact, without the padding.
    """
    wanted, start = np.asarray(rows, np.int64), 0
    embeddings, predictions, losses = [], [], []
    for points, guesses, _, batch_losses in handle.sweep(source, with_losses=True):
        first, last = np.searchsorted(wanted, (start, start + len(guesses)))
        embeddings.append(points[wanted[first:last] - start])
        predictions.append(guesses)
        losses.append(batch_losses)
        start += len(guesses)
    everything = np.concatenate(predictions)
    values = {name: float(np.mean([batch[name] for batch in losses])) for name in losses[0]}
    values['acc'] = float(np.mean(everything == source.labels))
    return values, np.concatenate(embeddings), everything


class Evaluation(Callback):
    """Evaluates a source at each measurement, and another one once, at the end of the training.

    Args:
      source: evaluated at each measurement.
      final_source: evaluated at the end; None: no evaluation there.

    Attributes:
      source: the first one, `all_labels` are its labels.
      numbers: int [k], indices of at most 2000 samples of it, evenly spaced, and `labels` int [k].
      embeddings, predictions: float32 [k, dim] and int [k] of these samples in the latest
        measurement; None before.
      all_predictions: int [n] of the whole source; None before.
    """

    metrics = (
        *(loss(group, name) for group in ('valid', 'test') for name in _LOSSES),
        *(accuracy(group) for group in ('valid', 'test')),
        Metric('test_images', 'images', 'test', form=','),
    )

    def __init__(self, source: Source, final_source: Source | None = None) -> None:
        self.source, self.all_labels = source, source.labels
        self.numbers = metrics.evenly_spaced(len(source.labels), _KEPT)
        self.labels = self.all_labels[self.numbers]
        self.embeddings: Any = None
        self.predictions: Any = None
        self.all_predictions: Any = None
        self._final_source = final_source

    def _evaluate(self):
        found = evaluate(self.handle, self.source, self.numbers)
        values, self.embeddings, self.all_predictions = found
        self.predictions = self.all_predictions[self.numbers]
        return values

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs.update({f'valid_{name}': value for name, value in self._evaluate().items()})

    def on_train_end(self, logs: Any = None) -> None:
        # Resumed with all steps done, a run measures nothing, but draws its pictures.
        if self.embeddings is None:
            self._evaluate()
        if self._final_source is not None:
            values, _, _ = evaluate(self.handle, self._final_source)
            logs.update({f'test_{name}': value for name, value in values.items()})
            logs['test_images'] = len(self._final_source.labels)
