"""Loss and accuracy on the validation and test sets."""

from __future__ import annotations

import dataclasses
from typing import Any, Sequence

import numpy as np

from callbacks.base import Callback, Handle
from callbacks.class_distances import DISTANCES, ERRORS, class_distances
from gitloss import metrics
from gitloss.data.source import Source
from gitloss.metrics import Metric
from gitloss.metrics.declaration import accuracy, loss

_TERMS = ('softmax_loss', 'center_loss', 'git_loss')  # of the loss in a sweep
_TEST_IMAGES = Metric('test_images', 'images', 'test', form=',')
_LIMIT = 2000  # of embeddings in memory: millions of samples would take gigabytes


def evaluate(
    handle: Handle,
    source: Source,
    numbers: Sequence[int] | np.ndarray = (),
    with_losses: bool = True,
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Evaluates a source in one sweep, or two if its labels are no classes.

    Args:
      handle: computes the sweep.
      source: a Source.
      numbers: increasing indices of the k samples whose embeddings are returned.
      with_losses: False for labels that are no classes of the model.

    Returns:
      ({'loss': ..., 'softmax_loss': ..., ..., 'acc': ...}, embeddings float32 [k, dim], predictions
      int [n]). The losses are means over batches of the training batch size, on which the git term
      depends. The accuracy is exact, without padding. Instead of both, without losses, the
      distances of class_distances.
    """
    chosen, start = np.asarray(numbers, np.int64), 0
    batches = []
    for points, batch_predictions, _, batch_losses in handle.sweep(source, with_losses):
        first, last = np.searchsorted(chosen, (start, start + len(points)))
        batches.append((points[chosen[first:last] - start], batch_predictions, batch_losses))
        start += len(points)
    embeddings, predictions, losses = zip(*batches)
    if with_losses:
        result = {name: float(np.mean([batch[name] for batch in losses])) for name in losses[0]}
        result['acc'] = float(np.mean(np.concatenate(predictions) == source.labels))
    else:
        result = class_distances(handle, source, int(source.labels.max()) + 1)[0]
    return result, np.concatenate(embeddings), np.concatenate(predictions)


def _losses(group: str) -> tuple[Metric, ...]:
    return (*(loss(group, name) for name in ('loss', *_TERMS)), accuracy(group))


def _distances(group: str) -> tuple[Metric, ...]:
    """Of a split whose labels are no classes. No choice depends on the test set."""
    inter, intra, ratio, *errors = (
        dataclasses.replace(metric, name=f'{group}_{metric.name}', group=group, label='')
        for metric in (*DISTANCES, *ERRORS)
    )
    if group == 'valid':
        return (inter, intra, dataclasses.replace(ratio, label='valid inter/intra'), *errors)
    return tuple(
        dataclasses.replace(metric, higher_is_better=None)
        for metric in (inter, intra, ratio, *errors)
    )


class Evaluation(Callback):
    """Evaluates a source at each measurement, and optionally another source at the end of training.

    Logs: `valid_loss`, `valid_softmax_loss`, ..., `valid_acc`; at the end `test_loss` ... and
    `test_images`, the number of test images. Of a source with labels that are no classes, instead
    of losses and accuracy: `valid_inter_cls_dist`, `valid_intra_cls_dist`, ...

    Args:
      source: a Source, evaluated at each measurement; or None.
      final_source: a Source, evaluated at the end; or None.
      num_classes: labels from it on are no classes; None: all labels are.

    Attributes, of the latest measurement, for pictures:
      numbers: int64 [k], indices of at most 2000 samples, evenly spaced.
      embeddings: float32 [k, dim] of these samples; None before the first measurement.
      labels, predictions: int [k] of these samples.
      all_labels, all_predictions: int [n] of the whole source.
      source: the evaluated Source.
      has_classes: whether the labels of the source are classes.
    """

    metrics = (
        *_losses('valid'),
        *_losses('test'),
        _TEST_IMAGES,
    )
    embeddings: Any = None

    def __init__(
        self,
        source: Source | None,
        final_source: Source | None = None,
        num_classes: int | None = None,
    ) -> None:
        self._num_classes, self._final_source = num_classes, final_source
        self.source: Any = source
        if source is not None:
            self.all_labels = source.labels
            self.numbers = metrics.evenly_spaced(len(source.labels), _LIMIT)
            self.labels = self.all_labels[self.numbers]
            self.has_classes = self._are_classes(source)
        self.metrics = (
            *self._metrics_of('valid', source),
            *self._metrics_of('test', final_source),
            *([] if final_source is None else [_TEST_IMAGES]),
        )

    def _metrics_of(self, group: str, source: Source | None) -> tuple[Metric, ...]:
        if source is None:
            return ()
        return _losses(group) if self._are_classes(source) else _distances(group)

    def _are_classes(self, source: Source) -> bool:
        return self._num_classes is None or int(source.labels.max()) < self._num_classes

    def _evaluate(self) -> dict[str, float]:
        result, self.embeddings, self.all_predictions = evaluate(
            self.handle, self.source, self.numbers, self.has_classes
        )
        self.predictions = self.all_predictions[self.numbers]
        return result

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.source is not None:
            logs.update({'valid_' + key: value for key, value in self._evaluate().items()})

    def on_train_end(self, logs: Any = None) -> None:
        # A run that is resumed at its last step has no measurement, but needs embeddings for
        # pictures.
        if self.source is not None and self.embeddings is None:
            self._evaluate()
        if self._final_source is not None:
            with_losses = self._are_classes(self._final_source)
            result, _, _ = evaluate(self.handle, self._final_source, (), with_losses)
            logs.update(
                {'test_' + key: value for key, value in result.items()},
                test_images=len(self._final_source.labels),
            )
