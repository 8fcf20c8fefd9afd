"""Loss and accuracy on the validation and test sets."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from callbacks.base import Callback, Handle
from gitloss import metrics
from gitloss.data.source import Source
from gitloss.metrics import Metric
from gitloss.metrics.declaration import accuracy, loss

_TERMS = ('softmax_loss', 'center_loss', 'git_loss')  # of the loss in a sweep
_LIMIT = 2000  # of embeddings in memory: millions of samples would take gigabytes


def evaluate(
    handle: Handle, source: Source, numbers: Sequence[int] | np.ndarray = ()
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Evaluates a source in one sweep.

    Args:
      handle: computes the sweep.
      source: a Source.
      numbers: increasing indices of the k samples whose embeddings are returned.

    Returns:
      ({'loss': ..., 'softmax_loss': ..., ..., 'acc': ...}, embeddings float32 [k, dim], predictions
      int [n]). The losses are means over batches of the training batch size, on which the git term
      depends. The accuracy is exact, without padding.
    """
    chosen, start = np.asarray(numbers, np.int64), 0
    batches = []
    for points, batch_predictions, _, batch_losses in handle.sweep(source, with_losses=True):
        first, last = np.searchsorted(chosen, (start, start + len(points)))
        batches.append((points[chosen[first:last] - start], batch_predictions, batch_losses))
        start += len(points)
    embeddings, predictions, losses = zip(*batches)
    result = {name: float(np.mean([batch[name] for batch in losses])) for name in losses[0]}
    result['acc'] = float(np.mean(np.concatenate(predictions) == source.labels))
    return result, np.concatenate(embeddings), np.concatenate(predictions)


class Evaluation(Callback):
    """Evaluates a source at each measurement, and optionally another source at the end of training.

    Logs: `valid_loss`, `valid_softmax_loss`, ..., `valid_acc`; at the end `test_loss` ... and
    `test_images`, the number of test images.

    Args:
      source: a Source, evaluated at each measurement.
      final_source: a Source, evaluated at the end; or None.

    Attributes, of the latest measurement, for pictures:
      numbers: int64 [k], indices of at most 2000 samples, evenly spaced.
      embeddings: float32 [k, dim] of these samples; None before the first measurement.
      labels, predictions: int [k] of these samples.
      all_labels, all_predictions: int [n] of the whole source.
      source: the evaluated Source.
    """

    metrics = (
        *(loss(group, name) for group in ('valid', 'test') for name in ('loss', *_TERMS)),
        *(accuracy(group) for group in ('valid', 'test')),
        Metric('test_images', 'images', 'test', form=','),
    )
    embeddings: Any = None

    def __init__(self, source: Source, final_source: Source | None = None) -> None:
        self.source, self.all_labels = source, source.labels
        self.numbers = metrics.evenly_spaced(len(source.labels), _LIMIT)
        self.labels = self.all_labels[self.numbers]
        self._final_source = final_source

    def _evaluate(self) -> dict[str, float]:
        result, self.embeddings, self.all_predictions = evaluate(
            self.handle, self.source, self.numbers
        )
        self.predictions = self.all_predictions[self.numbers]
        return result

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs.update({'valid_' + key: value for key, value in self._evaluate().items()})

    def on_train_end(self, logs: Any = None) -> None:
        # A run that is resumed at its last step has no measurement, but needs embeddings for
        # pictures.
        if self.embeddings is None:
            self._evaluate()
        if self._final_source is not None:
            result, _, _ = evaluate(self.handle, self._final_source)
            logs.update(
                {'test_' + key: value for key, value in result.items()},
                test_images=len(self._final_source.labels),
            )
