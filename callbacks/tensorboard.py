"""Everything worth seeing of a run for `tensorboard --logdir output`, made on the host from values
that were fetched anyway.
"""

from __future__ import annotations

import os

import numpy as np

from callbacks import summaries
from callbacks.base import Callback
from callbacks.projector import Projector
from gitloss import metrics
from gitloss.backend import tf
from gitloss.errors import log
from gitloss.figures import plots
from gitloss.figures.view import View

_GROUPS = (
    ('train_', 'train/'),
    ('valid_', 'valid/'),
    ('test_', 'test/'),
    ('inter_', 'distance/inter_'),
    ('intra_', 'distance/intra_'),
    ('center_', 'centers/center_'),
    ('centers_', 'centers/centers_'),
    ('learning_rate', 'train/learning_rate'),
)
_BEGIN, _END = (
    '.hparams',
    '.end',
)  # of the names of the files with what a run says when it begins, and when it is over
_READABLE_CLASSES = 200  # in a confusion matrix
_METRICS = {
    'valid/acc': 'validation accuracy',
    'test/acc': 'test accuracy',
    'distance/inter_cls_dist': 'inter-class distance',
    'distance/intra_cls_dist': 'intra-class distance',
    'distance/inter_over_intra': 'inter / intra',
    'valid/loss': 'validation loss',
    'train/acc': 'training accuracy',
    'train/loss': 'training loss',
    'run/images_per_sec': 'images/s',
}
_FIRST_HPARAMS = ('loss', 'lambda_c', 'lambda_g', 'embedding_dim', 'learning_rate')


def tag_of(name):
    """The tag of a measurement's log entry: `train_git_loss` -> `train/git_loss`, `images_per_sec`
    -> `run/images_per_sec`.
    """
    for prefix, group in _GROUPS:
        if name.startswith(prefix):
            return group + name[len(prefix) :]
    return 'run/' + name


def _scalars(logs, tag):
    return [
        summaries.scalar(tag(name), value)
        for name, value in logs.items()
        if isinstance(value, (int, float, np.number))
        and not isinstance(value, bool)
        and name != 'step'
    ]


class TensorBoard(Callback):
    """Writes event files and the Projector's files into the run's folder.

    At each measurement: all numbers of the logs, and, given the callbacks that measure, histograms
    (norms of the validation embeddings; distances of genuine and of impostor pairs among 1000 of
    them), the embedding scatter and the confusion matrix as images, and the embeddings for the
    Projector. Every `log_every` steps: the step's own numbers, as `train_batch/...`.
    At the beginning: options and versions as text, the graph, the hyperparameters; at the end: the
    test numbers and how it ended.

    A continued run draws one line: TensorBoard drops what older files hold of later steps, and the
    hyperparameters and what was said at the end, in files of their own, are taken away when the run
    goes on. Whatever fails here warns once and never stops the training.

    Args:
      log_every: steps between two points of the `train_batch` curves.
      evaluation: the Evaluation; None for no pictures.
      centers: the callback that holds the class `means`; without it the scatter shows no means.
      facts: {heading: {name: value}} to be shown as text, beside the options.
      hparams: the options that count as hyperparameters, {name: plain value}; None for all.
    """

    chief_only = True

    def __init__(self, log_every=20, evaluation=None, centers=None, facts=None, hparams=None):
        self._log_every, self._evaluation, self._centers = log_every, evaluation, centers
        self.intervals = {'log_every of TensorBoard': log_every}
        self._facts, self._hparams = facts or {}, hparams
        self._events, self._projector = None, None
        self._ended = False
        self._view = View()
        self.state, self.load_state = self._view.state, self._view.load_state
        self._warned = set()

    def _attempt(self, what, write, *args):
        try:
            write(*args)
        except Exception as error:  # noqa: BLE001 - nothing here is worth a run
            if what not in self._warned:
                log.warning('TensorBoard: no %s at step %d: %s', what, self.handle.step, error)
            self._warned.add(what)

    # --- beginning
    # ----------------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        if self._evaluation is not None:
            self._projector = Projector(self.handle.run_dir, self._evaluation.source)
        self._attempt('event file', self._open)

    def _open(self):
        folder = self.handle.run_dir
        before = [name for name in os.listdir(folder) if name.startswith('events.out.tfevents.')]
        self._events = summaries.EventFile(folder)
        for name in before:
            if name.endswith(
                (_BEGIN, _END)
            ):  # the run did not end there, and goes on with other options perhaps
                self._attempt('removal of what is outdated', os.remove, os.path.join(folder, name))
        if not before:
            self._attempt('graph', self._write_graph)
        self.on_rewind(self.handle.step)
        self._attempt('hyperparameters', self._write_hparams)

    def on_rewind(self, step):
        if self._events is None:
            return
        # From here on TensorBoard drops what it has of steps later than `step`: they come again.
        self._events.write(
            step=step + 1, session_log=summaries.SessionLog(status=summaries.SessionLog.START)
        )
        self._attempt('text', self._write_text, step + 1)

    def _write_text(self, step):
        pages = dict({'options': self.handle.options}, **self._facts)
        self._events.add(
            step,
            [
                summaries.text('run/' + name, summaries.table(rows))
                for name, rows in pages.items()
                if rows
            ],
        )

    def _write_hparams(self):
        settings = self.handle.options if self._hparams is None else self._hparams
        shown = {
            tag: name
            for tag, name in _METRICS.items()
            if (self._evaluation is None) == tag.startswith(('train/', 'run/'))
        }
        begin = summaries.EventFile(
            self.handle.run_dir, _BEGIN
        )  # of several TensorBoard would take the first
        begin.add(
            0,
            [
                summaries.hparams_experiment(settings, shown, _FIRST_HPARAMS),
                summaries.hparams_start(settings),
            ],
        )
        begin.close()

    def _write_graph(self):
        graph = tf.get_default_graph().as_graph_def(add_shapes=True)
        if graph.node:
            self._events.write(step=self.handle.step, graph_def=graph.SerializeToString())

    # --- while it trains
    # ----------------------------------------------------------------------------------------------------

    def on_train_batch_end(self, batch, logs=None):
        if self._events is not None and self.handle.passed(self._log_every):
            own = {
                name: value for name, value in logs.items() if name != 'images_per_sec'
            }  # of one step it says little
            self._attempt(
                'scalars', lambda: self._events.add(batch, _scalars(own, 'train_batch/{}'.format))
            )

    def on_epoch_end(self, epoch, logs=None):
        if self._events is None:
            return
        step = logs['step']
        self._attempt('scalars', lambda: self._events.add(step, _scalars(logs, tag_of)))
        if self._evaluation is None or self._evaluation.embeddings is None:
            return
        held = self._evaluation
        self._attempt('histograms', self._write_histograms, step, held)
        self._attempt('scatter', self._write_scatter, step, held, logs)
        if self.handle.num_classes <= _READABLE_CLASSES:
            self._attempt('confusion matrix', self._write_confusion, step, held)
        self._attempt(
            'Projector files',
            self._projector.write,
            'embeddings at step %d' % step,
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

    def _write_scatter(self, step, held, logs):
        means = (
            np.full((1, held.embeddings.shape[1]), np.nan)
            if self._centers is None
            else self._centers.means
        )
        points, means, limit = self._view.project(held.embeddings, means)
        shown = (
            ('valid_acc', 'valid acc %.4f'),
            ('inter_cls_dist', 'inter %.2f'),
            ('intra_cls_dist', 'intra %.2f'),
        )
        title = '   '.join(
            ['step %d' % step] + [form % logs[name] for name, form in shown if name in logs]
        )
        png = plots.png_bytes(plots.scatter(points, held.labels, means, title, limit))
        self._events.add(step, [summaries.image('embeddings/scatter', png)])

    def _write_confusion(self, step, held):
        png = plots.png_bytes(
            plots.confusion(held.all_labels, held.all_predictions, self.handle.num_classes)
        )
        self._events.add(step, [summaries.image('predictions/confusion', png)])

    # --- end
    # ----------------------------------------------------------------------------------------------------------------

    def on_train_end(self, logs=None):
        tests = {name: value for name, value in logs.items() if name.startswith('test_')}
        self._attempt(
            'end',
            self._write_end,
            summaries.SUCCESS,
            logs.get('step', self.handle.step),
            _scalars(tests, tag_of),
        )

    def _write_end(self, status, step, values):
        self._ended = True
        if self._events is not None:
            end = summaries.EventFile(self.handle.run_dir, _END)
            end.add(step, values + [summaries.hparams_end(status)])
            end.close()

    def close(self):
        if self._events is None:
            return
        try:
            if not self._ended:
                self._attempt('end', self._write_end, summaries.FAILURE, self.handle.step, [])
        finally:
            self._events.close()
