"""What `tensorboard --logdir output` shows of a run, made on the host from values that were fetched
anyway.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping

import numpy as np

from callbacks import summaries
from callbacks.base import Callback
from callbacks.figures import Figures
from callbacks.projector import Projector
from gitloss import metrics
from gitloss.backend import tf
from gitloss.errors import log
from gitloss.metrics import Metric

# Suffixes of the event files with the hyperparameters' start and end events.
_BEGIN, _END = '.hparams', '.end'
_READABLE_CLASSES = 200  # in a confusion matrix
_FIRST_HPARAMS = ('head', 'lambda_c', 'lambda_g', 'embedding_dim', 'learning_rate')


def _scalars(logs, tag):
    """Scalar summaries of the numbers in the logs, under `tag(name)`."""
    return [
        summaries.scalar(tag(name), value)
        for name, value in logs.items()
        if isinstance(value, (int, float, np.number))
        and not isinstance(value, bool)
        and name != 'step'
    ]


class TensorBoard(Callback):
    """Writes event files and the Projector's files into the run's folder.

    At each measurement: all numbers of the logs and, given the Figures, histograms (norms of the
    validation embeddings; distances of genuine and of impostor pairs among 1000 of them), the
    scatter and the confusion matrix as images, and the embeddings for the Projector. Every
    `log_every` steps: the step's own numbers, as `train_batch/...`. At the beginning: options and
    versions as text, the graph, the hyperparameters; at the end: the metrics of the test set and
    the status.

    The curves of a resumed run have no gap and no double points: TensorBoard drops the later steps
    of older files, and the files of hyperparameters and end are removed. Whatever fails here is a
    warning, once per kind, and never stops the training.

    Args:
      log_every: steps between two points of the `train_batch` curves.
      figures: the Figures of each measurement; None: no pictures.
      facts: {heading: {name: value}}, shown as text beside the options.
      hparams: {name: plain value} of the hyperparameters; None: all options.
    """

    chief_only = True

    def __init__(
        self,
        log_every: int = 20,
        figures: Figures | None = None,
        facts: Mapping[str, Mapping[str, Any]] | None = None,
        hparams: Mapping[str, Any] | None = None,
    ) -> None:
        self._log_every, self.figures = log_every, figures
        self.intervals = {'log_every of TensorBoard': log_every}
        self._facts, self._hparams = facts or {}, hparams
        self._events: Any = None
        self._projector: Any = None
        self._ended = False
        self._warned: set[str] = set()

    def _attempt(self, what: str, write: Callable[..., None], *args: Any) -> None:
        try:
            write(*args)
        except Exception as error:  # noqa: BLE001 - nothing here is worth a run
            if what not in self._warned:
                log.warning('TensorBoard: no %s at step %d: %s', what, self.handle.step, error)
            self._warned.add(what)

    def _tag(self, name: str) -> str:
        return self.handle.metrics.get(name, Metric(name, name)).tag

    # --- beginning

    def on_train_begin(self, logs: Any = None) -> None:
        if self.figures is not None:
            self._projector = Projector(self.handle.run_dir, self.figures.evaluation.source)
        self._attempt('event file', self._open)

    def _open(self):
        folder = self.handle.run_dir
        before = [name for name in os.listdir(folder) if name.startswith('events.out.tfevents.')]
        self._events = summaries.EventFile(folder)
        for name in before:
            # The run did not end there, and may go on with other options.
            if name.endswith((_BEGIN, _END)):
                self._attempt('removal of what is outdated', os.remove, os.path.join(folder, name))
        if not before:
            self._attempt('graph', self._write_graph)
        self.on_rewind(self.handle.step)
        self._attempt('hyperparameters', self._write_hparams)

    def on_rewind(self, step: int) -> None:
        if self._events is None:
            return
        # TensorBoard drops the events it has of later steps: they come again.
        self._events.write(
            step=step + 1, session_log=summaries.SessionLog(status=summaries.SessionLog.START)
        )
        self._attempt('text', self._write_text, step + 1)

    def _write_text(self, step):
        pages: dict[str, Any] = {'options': self.handle.options, **self._facts}
        values = [
            summaries.text(f'run/{name}', summaries.table(rows))
            for name, rows in pages.items()
            if rows
        ]
        self._events.add(step, values)

    def _columns(self) -> dict[str, str]:
        """{tag: title} of the metrics beside the hyperparameters: those with a label, and those of
        no data set that have a better direction. Training and speed stand there if they are all.
        """
        shown = [
            metric
            for metric in self.handle.metrics.values()
            if metric.label or (metric.higher_is_better is not None and not metric.part)
        ]
        measured = [metric for metric in shown if metric.group not in ('train', 'run')]
        return {metric.tag: metric.full_title for metric in measured or shown}

    def _write_hparams(self):
        settings = self.handle.options if self._hparams is None else self._hparams
        # A file of its own: of several experiments TensorBoard would take the first.
        begin = summaries.EventFile(self.handle.run_dir, _BEGIN)
        experiment = summaries.hparams_experiment(settings, self._columns(), _FIRST_HPARAMS)
        begin.add(0, [experiment, summaries.hparams_start(settings)])
        begin.close()

    def _write_graph(self):
        graph = tf.get_default_graph().as_graph_def(add_shapes=True)
        if graph.node:
            self._events.write(step=self.handle.step, graph_def=graph.SerializeToString())

    # --- while it trains

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._events is not None and self.handle.passed(self._log_every):
            # The speed of a single step says little.
            own = {name: value for name, value in logs.items() if name != 'images_per_sec'}
            self._attempt('scalars', self._write_scalars, batch, own, 'train_batch/{}'.format)

    def _write_scalars(self, step, logs, tag):
        self._events.add(step, _scalars(logs, tag))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._events is None:
            return
        step = logs['step']
        self._attempt('scalars', self._write_scalars, step, logs, self._tag)
        if self.figures is None or self.figures.evaluation.embeddings is None:
            return
        held = self.figures.evaluation
        self._attempt('histograms', self._write_histograms, step, held)
        images = {'scatter': ('embeddings/scatter', self.figures.scatter)}
        if self.handle.num_classes <= _READABLE_CLASSES:
            images['confusion matrix'] = ('predictions/confusion', self.figures.confusion)
        for what, (tag, draw) in images.items():
            self._attempt(what, self._write_image, step, tag, draw)
        self._attempt(
            'Projector files',
            self._projector.write,
            f'embeddings at step {step}',
            held.embeddings,
            held.labels,
            held.predictions,
            held.numbers,
        )

    def _write_histograms(self, step, held):
        genuine, impostor = metrics.pair_distances(held.embeddings, held.labels)
        samples = {
            'embeddings/norm': np.linalg.norm(held.embeddings, axis=1),
            'distance/genuine_pairs': genuine,
            'distance/impostor_pairs': impostor,
        }
        self._events.add(
            step,
            [summaries.histogram(tag, values) for tag, values in samples.items() if len(values)],
        )

    def _write_image(self, step, tag, draw):
        self._events.add(step, [summaries.image(tag, draw())])

    # --- end

    def on_train_end(self, logs: Any = None) -> None:
        tests = {name: logs[name] for name in logs if self._tag(name).startswith('test/')}
        values = _scalars(tests, self._tag)
        step = logs.get('step', self.handle.step)
        self._attempt('end', self._write_end, summaries.SUCCESS, step, values)

    def _write_end(self, status, step, values):
        self._ended = True
        if self._events is not None:
            end = summaries.EventFile(self.handle.run_dir, _END)
            end.add(step, values + [summaries.hparams_end(status)])
            end.close()

    def close(self) -> None:
        if self._events is None:
            return
        try:
            if not self._ended:
                self._attempt('end', self._write_end, summaries.FAILURE, self.handle.step, [])
        finally:
            self._events.close()
