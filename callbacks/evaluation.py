"""Loss, accuracy and class distances on the validation and test sets."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Sequence

import numpy as np

from callbacks.base import Callback, Handle
from callbacks.class_distances import DISTANCES, ERRORS, class_distances, distances_of, fits
from gitloss import metrics
from gitloss.data.source import Source
from gitloss.errors import log
from gitloss.metrics import Metric
from gitloss.metrics.declaration import accuracy, loss
from gitloss.metrics.verification import Roc, unit_rows

_TERMS = ('softmax_loss', 'center_loss', 'git_loss')  # of the loss in a sweep
_LIMIT = 2000  # of embeddings in memory: millions of samples would take gigabytes
_END = (
    Metric('test_eer', 'equal error rate', 'test', form='.4f', label='test EER'),
    Metric('test_auc', 'area under the ROC curve', 'test', form='.5f'),
    Metric('test_images', 'images', 'test', form=','),
)


class Evaluated(NamedTuple):
    """A source after a sweep.

    result: {'loss': ..., 'softmax_loss': ..., ..., 'acc': ..., 'inter_cls_dist': ...}.
    embeddings: float32 [k, dim] of the chosen samples.
    predictions: int [n] of all samples.
    """

    result: dict[str, float]
    embeddings: np.ndarray
    predictions: np.ndarray


def evaluate(
    handle: Handle,
    source: Source,
    numbers: Sequence[int] | np.ndarray = (),
    with_losses: bool = True,
) -> Evaluated:
    """Evaluates a source in one sweep, or two if its labels are no classes and its embeddings too
    many to be kept.

    The losses are means over batches of the training batch size, on which the git term depends. The
    accuracy is exact, without padding. The distances are those of class_distances; with losses,
    only if no second sweep is needed.

    Args:
      handle: computes the sweep.
      source: a Source.
      numbers: increasing indices of the k samples whose embeddings are returned.
      with_losses: False for labels that are no classes of the model; losses and accuracy are left
        out then.
    """
    chosen, start = np.asarray(numbers, np.int64), 0
    labels, count = source.labels, 1 + int(source.labels.max())
    is_kept = fits(len(labels), count, handle.options['embedding_dim'])
    batches, kept = [], []
    for points, batch_predictions, batch_labels, batch_losses in handle.sweep(source, with_losses):
        first, last = np.searchsorted(chosen, (start, start + len(points)))
        batches.append((points[chosen[first:last] - start], batch_predictions, batch_losses))
        if is_kept:
            kept.append((points, batch_labels))
        start += len(points)
    embeddings, predictions, losses = zip(*batches)
    result = {name: float(np.mean([batch[name] for batch in losses])) for name in losses[0]}
    if with_losses:
        result['acc'] = float(np.mean(np.concatenate(predictions) == labels))
    if is_kept:
        result.update(distances_of(kept))
    elif not with_losses:
        result.update(class_distances(handle, source, count)[0])
    return Evaluated(result, np.concatenate(embeddings), np.concatenate(predictions))


def _losses(group: str) -> tuple[Metric, ...]:
    return (*(loss(group, name) for name in ('loss', *_TERMS)), accuracy(group))


def _distances(group: str, shown: str = '') -> tuple[Metric, ...]:
    """Of a split. No choice depends on the test set.

    Args:
      shown: the label of the ratio.
    """
    inter, intra, ratio, *errors = (
        dataclasses.replace(metric, name=f'{group}_{metric.name}', group=group, label='')
        for metric in (*DISTANCES, *ERRORS)
    )
    declared = (inter, intra, dataclasses.replace(ratio, label=shown), *errors)
    if group == 'valid':
        return declared
    return tuple(dataclasses.replace(metric, higher_is_better=None) for metric in declared)


def verified(embeddings: np.ndarray, labels: np.ndarray, similarity: str) -> dict[str, float]:
    """`eer` and `auc` of all pairs of samples, a pair of one class being genuine; {} if there are
    not both kinds.

    Args:
      embeddings: float [n, dim].
      labels: int [n].
      similarity: cosine or euclidean.

    Raises:
      ValueError: an embedding is not finite, or zero with `cosine`.
    """
    # Of unit vectors, the order by distance is that by cosine.
    points = unit_rows(embeddings) if similarity == 'cosine' else embeddings
    genuine, impostor = metrics.pair_distances(points, labels, len(labels))
    if not (len(genuine) and len(impostor)):
        return {}
    scores = -np.concatenate([genuine, impostor])
    roc = Roc(scores, np.arange(len(scores)) < len(genuine))
    figures = {'eer': roc.eer(), 'auc': roc.auc()}
    return {name: value for name, value in figures.items() if value is not None}


class Evaluation(Callback):
    """Evaluates a source at each measurement, and optionally another source at the end of training.

    Logs: `valid_loss`, `valid_softmax_loss`, ..., `valid_acc`, `valid_inter_cls_dist`,
    `valid_intra_cls_dist`, `valid_inter_over_intra`; at the end `test_loss` ..., `test_images`, the
    number of test images, and `test_eer` and `test_auc` of the pairs of 2000 of them. Of a source
    with labels that are no classes, losses and accuracy are left out; of one with labels that are,
    the distances, if its embeddings do not fit in memory.

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
        *_distances('valid'),
        *_losses('test'),
        *_distances('test', 'test inter/intra'),
        *_END,
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
            *([] if final_source is None else _END),
        )

    def _metrics_of(self, group: str, source: Source | None) -> tuple[Metric, ...]:
        if source is None:
            return ()
        are_classes = self._are_classes(source)
        shown = f'{group} inter/intra' if group == 'test' or not are_classes else ''
        return (*(_losses(group) if are_classes else ()), *_distances(group, shown))

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
            self._evaluate_at_the_end(self._final_source, logs)

    def _evaluate_at_the_end(self, source: Source, logs: Any) -> None:
        numbers = metrics.evenly_spaced(len(source.labels), _LIMIT)
        result, embeddings, _ = evaluate(self.handle, source, numbers, self._are_classes(source))
        try:
            similarity = self.handle.options['similarity']
            result.update(verified(embeddings, source.labels[numbers], similarity))
        except ValueError as error:  # of a network that gives NaN or nothing but zeros
            log.warning('no verification of the test images: %s', error)
        logs.update(
            {'test_' + key: value for key, value in result.items()},
            test_images=len(source.labels),
        )
