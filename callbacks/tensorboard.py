"""Event files and Projector files for TensorBoard, written on the host without further fetches."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from callbacks import summaries
from callbacks.attempts import Attempts
from callbacks.base import Callback
from callbacks.evaluation import Evaluation
from callbacks.figures import Figures
from callbacks.projector import Projector
from gitloss import metrics
from gitloss.backend import tf
from gitloss.metrics import Metric

# File-name suffixes of the hparams start and end events.
_BEGIN, _END = '.hparams', '.end'
_READABLE_CLASSES = 200  # limit of the confusion matrix
_FIRST_HPARAMS = ('head', 'lambda_c', 'lambda_g', 'embedding_dim', 'learning_rate')


def _image(tag: str, draw: Callable[[], bytes]) -> list[Any]:
    return [summaries.image(tag, draw())]


def _scalars(logs: Mapping[str, Any], tag: Callable[[str], str]) -> list[Any]:
    """Scalar summaries of the numbers in the logs, with tags `tag(name)`."""
    return [
        summaries.Value(tag=tag(name), simple_value=value)
        for name, value in logs.items()
        if isinstance(value, (int, float, np.number))
        and not isinstance(value, bool)
        and name != 'step'
    ]


class TensorBoard(Callback):
    """Writes event files and the Projector's files into the run's folder.

    At each measurement: all numbers in the logs and, with Figures, histograms (norms of the
    validation embeddings; distances of genuine and impostor pairs among 1000 of them), the scatter
    plot and the confusion matrix as images, and the embeddings for the Projector. Every `log_every`
    steps: the numbers of the step, as `train_batch/...`. At the beginning: options and versions as
    text, the graph, the hyperparameters. At the end: the metrics of the test set and the status.

    The curves of a resumed run have no gaps and no duplicate points: TensorBoard drops the later
    steps of older files, and outdated hparams files are removed. Errors are warnings, once per
    kind, and never stop the training.

    Args:
      hparams: {name: plain value} of the hyperparameters.
      log_every: steps between two points of the `train_batch` curves.
      figures: the Figures of each measurement; None: no pictures.
      facts: {heading: {name: value}}, shown as text after the options.
      first: names of the hyperparameters that TensorBoard shows first; (): those of the loss.
    """

    chief_only = True

    def __init__(
        self,
        hparams: Mapping[str, Any],
        log_every: int = 20,
        figures: Figures | None = None,
        facts: Mapping[str, Mapping[str, Any]] | None = None,
        first: Sequence[str] = (),
    ) -> None:
        self._log_every, self.figures = log_every, figures
        self.intervals = {'log_every of TensorBoard': log_every}
        self._facts, self._hparams = facts or {}, hparams
        self._first = [name for name in first if name in hparams] or _FIRST_HPARAMS
        self._events: Any = None  # an EventFile, unless it cannot be opened
        self._status = summaries.FAILURE  # until on_train_end
        self._last: Mapping[str, Any] = {}
        self._attempt = Attempts(self, 'TensorBoard: no %s at step %d: %s')

    def _add(self, what: str, step: int, make: Callable[..., list[Any]], *args: Any) -> None:
        self._attempt(what, lambda: self._events.add(step, make(*args)))

    def _tag(self, name: str) -> str:
        return self.handle.metrics.get(name, Metric(name, name)).tag

    def on_train_begin(self, logs: Any = None) -> None:
        if self.figures is not None:
            self._projector = Projector(self.handle.write, self.figures.evaluation.source)
        self._attempt('event file', self._open)

    def _open(self) -> None:
        folder = self.handle.run_dir
        before = [name for name in os.listdir(folder) if name.startswith('events.out.tfevents.')]
        self._events = self._event_file()
        for name in before:
            # The run did not end there, and its options may have changed.
            if name.endswith((_BEGIN, _END)):
                self._attempt('removal of outdated files', os.remove, os.path.join(folder, name))
        if not before:
            self._attempt('graph', self._write_graph)
        self.on_rewind(self.handle.step)
        self._attempt('hyperparameters', self._write_hparams)

    def on_rewind(self, step: int) -> None:
        if self._events is not None:
            # TensorBoard drops its events of later steps, which are repeated.
            self._events.write(step=step + 1, session_log={'status': summaries.SessionLog.START})
            self._add('text', step + 1, self._texts)

    def _texts(self) -> list[Any]:
        return [
            summaries.table(f'run/{name}', page)
            for name, page in {'options': self.handle.options, **self._facts}.items()
            if page
        ]

    def _columns(self) -> dict[str, str]:
        """{tag: title} of the metrics shown with the hyperparameters: those with a label, and those
        of no data set that have a better direction. Metrics of training and speed are shown only if
        there are no others.
        """
        shown = [
            metric
            for metric in self.handle.metrics.values()
            if metric.label or (metric.higher_is_better is not None and not metric.part)
        ]
        measured = [metric for metric in shown if metric.group not in ('train', 'run')]
        return {metric.tag: metric.full_title for metric in measured or shown}

    def _write_hparams(self) -> None:
        # A resumed run removes the file: TensorBoard uses the first experiment.
        columns = summaries.hparams_columns(self._hparams, self._columns(), self._first)
        self._write_file(_BEGIN, 0, [columns, summaries.hparams_start(self._hparams)])

    def _event_file(self, suffix: str = '') -> summaries.EventFile:
        return summaries.EventFile(self.handle.run_dir, suffix, lambda: self.handle.run_dir)

    def _write_file(self, suffix: str, step: int, values: list[Any]) -> None:
        """Writes summaries into a file of their own."""
        with contextlib.closing(self._event_file(suffix)) as events:
            events.add(step, values)

    def _write_graph(self) -> None:
        graph = tf.get_default_graph().as_graph_def(add_shapes=True)
        self._events.write(step=self.handle.step, graph_def=graph.SerializeToString())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._events is not None and self.handle.passed(self._log_every):
            # The speed of a single step is noise.
            own = {name: value for name, value in logs.items() if name != 'images_per_sec'}
            self._add('scalars', batch, _scalars, own, 'train_batch/{}'.format)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._events is not None:
            self._add('scalars', logs['step'], _scalars, logs, self._tag)
            if self.figures is not None:
                self._write_figures(logs['step'], self.figures)

    def _write_figures(self, step: int, figures: Figures) -> None:
        evaluation = figures.evaluation
        self._add('histograms', step, self._histograms, evaluation)
        self._add('scatter', step, _image, 'embeddings/scatter', figures.scatter)
        if evaluation.has_classes and self.handle.num_classes <= _READABLE_CLASSES:
            self._add('confusion matrix', step, _image, 'predictions/confusion', figures.confusion)
        self._attempt(
            'Projector files',
            self._projector.write,
            f'embeddings at step {step}',
            evaluation.embeddings,
            evaluation.labels,
            evaluation.predictions,
            evaluation.numbers,
        )

    def _histograms(self, evaluation: Evaluation) -> list[Any]:
        genuine, impostor = metrics.pair_distances(evaluation.embeddings, evaluation.labels)
        samples = {
            'embeddings/norm': np.linalg.norm(evaluation.embeddings, axis=1),
            'distance/genuine_pairs': genuine,
            'distance/impostor_pairs': impostor,
        }
        return [summaries.histogram(tag, values) for tag, values in samples.items() if len(values)]

    def on_train_end(self, logs: Any = None) -> None:
        self._status, self._last = summaries.SUCCESS, logs

    def close(self) -> None:
        if self._events is not None:
            tests = {
                name: self._last[name] for name in self._last if self._tag(name).startswith('test/')
            }
            try:
                self._attempt(
                    'end',
                    self._write_file,
                    _END,
                    self._last.get('step', self.handle.step),
                    [*_scalars(tests, self._tag), summaries.hparams_end(self._status)],
                )
            finally:
                self._events.close()
