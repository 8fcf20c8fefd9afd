"""Pictures of the embeddings while they form, and of the run when it is over."""

from __future__ import annotations

import importlib.util
import io
import os
import re

import numpy as np

from callbacks.base import Callback
from gitloss import metrics
from gitloss.errors import log
from gitloss.figures import plots
from gitloss.figures.view import View
from gitloss.files import write_atomically

_FRAME = 'frame-%08d.npz'


class Pictures(Callback):
    """`plots/scatter-<step>.png` at each measurement: validation embeddings, and the class means of
    the training set.

    While the run lasts they share a View. At the end they are drawn again with one pair of axes for
    the whole run, and of more than two dimensions on the two principal axes of the last
    measurement; beside them `scatter.gif`, `losses.png`, `distances.png` (intra and inter over
    time), `pairs.png` (distances of genuine and impostor pairs), `confusion.png` (up to 1000
    classes), and, if asked for, `tsne.png` of the last measurement. What is drawn again lies in
    `plots/frames/`, so that a continued run has it too. A failing plot warns once of its kind and
    never stops the training.

    Args:
      evaluation: the Evaluation.
      centers: the callback that holds the class `means`.
      history: the callback that holds the `rows` of all measurements.
      projection: "pca", or "tsne" for that picture besides.

    Raises:
      ValueError: "tsne" without scikit-learn.
    """

    chief_only = True

    def __init__(self, evaluation, centers, history, projection='pca'):
        if projection == 'tsne' and not importlib.util.find_spec('sklearn'):
            raise ValueError(
                '--projection: expected scikit-learn to be installed for tsne. Received: none; pip install scikit-learn'
            )
        self._evaluation, self._centers, self._history, self._projection = (
            evaluation,
            centers,
            history,
            projection,
        )
        self._view = View()
        self.state, self.load_state = self._view.state, self._view.load_state
        self._warned = set()

    def _guarded(self, what, draw, *args):
        try:
            draw(*args)
        except Exception as error:  # noqa: BLE001 - a picture is never worth a run
            if what not in self._warned:
                log.warning('no picture (%s) at step %d: %s', what, self.handle.step, error)
            self._warned.add(what)

    def _path(self, *names):
        path = os.path.join(self.handle.run_dir, 'plots', *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def on_train_begin(self, logs=None):
        self.on_rewind(self.handle.step)

    def on_rewind(self, step):
        self._guarded('frames', self._forget, step)

    def _forget(self, step):
        for number, path in self._frames():
            if number > step:  # of steps that come again
                os.remove(path)

    def on_epoch_end(self, epoch, logs=None):
        self._guarded('scatter', self._measured, logs)

    def _measured(self, logs):
        title = 'step %d   valid acc %.4f   inter %.2f   intra %.2f' % (
            logs['step'],
            logs['valid_acc'],
            logs['inter_cls_dist'],
            logs['intra_cls_dist'],
        )
        held, means = self._evaluation, self._centers.means
        frame = {
            'points': held.embeddings,
            'labels': held.labels,
            'means': means.astype(np.float32),
            'title': np.array(title),
        }
        path = self._path('frames', _FRAME % logs['step'])
        content = io.BytesIO()  # not the file: on a full disk zipfile ends with a traceback
        np.savez(content, **frame)
        write_atomically(path, content.getvalue())
        points, means, limit = self._view.project(held.embeddings, means)
        _save(
            plots.scatter(points, held.labels, means, title, limit),
            self._path('scatter-%06d.png' % logs['step']),
        )

    def _frames(self):
        folder = os.path.join(self.handle.run_dir, 'plots', 'frames')
        found = (
            re.match(r'frame-(\d{8,})\.npz$', name)
            for name in (os.listdir(folder) if os.path.isdir(folder) else [])
        )
        return sorted(
            (int(name.group(1)), os.path.join(folder, name.group())) for name in found if name
        )

    def on_train_end(self, logs=None):
        self._guarded('animation', self._draw_run)
        self._guarded('curves', self._draw_curves)
        if self._evaluation.embeddings is not None:
            self._guarded('pairs', self._draw_pairs)
            if self.handle.num_classes <= plots.MOST_CLASSES:
                self._guarded('confusion', self._draw_confusion)
            if self._projection == 'tsne':
                self._guarded('t-SNE', self._draw_tsne)

    def _draw_run(self):
        frames = []
        for step, path in self._frames():
            with np.load(path, allow_pickle=False) as archive:
                frames.append((step, {name: archive[name] for name in archive.files}))
        if not frames:
            return
        plane = plots.plane(frames[-1][1]['points'])
        for _, frame in frames:
            frame['points'], frame['means'] = plane(frame['points']), plane(frame['means'])
        limit = max(plots.extent(frame['points'], frame['means']) for _, frame in frames)
        figures = []
        for step, frame in frames:
            figures.append(
                plots.scatter(
                    frame['points'], frame['labels'], frame['means'], str(frame['title']), limit
                )
            )
            _save(figures[-1], self._path('scatter-%06d.png' % step))
        write_atomically(self._path('scatter.gif'), plots.gif_bytes(figures))

    def _draw_curves(self):
        def lines(names):
            rows = self._history.rows
            found = {
                label: [(row['step'], row[name]) for row in rows if name in row]
                for name, label in names.items()
            }
            return {label: tuple(zip(*pairs)) for label, pairs in found.items() if pairs}

        _save(
            plots.curves(
                lines(
                    {
                        'train_loss': 'total',
                        'valid_loss': 'total, validation',
                        'train_softmax_loss': 'softmax',
                        'train_center_loss': 'center',
                        'train_git_loss': 'git',
                        'train_git_floor': 'git floor',
                    }
                ),
                'training loss and its parts',
                'loss',
                log_scale=True,
            ),
            self._path('losses.png'),
        )
        # Logarithmic, or the intra-class distance, twenty times smaller in the end, is a flat line.
        _save(
            plots.curves(
                lines({'inter_cls_dist': 'inter-class', 'intra_cls_dist': 'intra-class'}),
                'distances of the training set',
                'Euclidean distance',
                log_scale=True,
            ),
            self._path('distances.png'),
        )

    def _draw_pairs(self):
        genuine, impostor = metrics.pair_distances(
            self._evaluation.embeddings, self._evaluation.labels
        )
        _save(plots.distances(genuine, impostor), self._path('pairs.png'))

    def _draw_tsne(self):
        """Neighbours stay neighbours, distances between groups mean nothing; that is why it is no
        substitute for the scatter.
        """
        from sklearn.manifold import TSNE

        points, means = self._evaluation.embeddings, self._centers.means
        there = np.isfinite(means).all(axis=1)
        every = np.concatenate([points, means[there]]).astype(np.float32)
        start = 'random'
        if (
            every.shape[1] > 1
            # drawn from the plane of largest spread; what init='pca' is differs between versions of
            # scikit-learn
        ):
            origin, axes = plots.principal_axes(every.astype(np.float64))
            start = (every - origin).dot(axes)
            start = (1e-4 / max(start[:, 0].std(), 1e-12) * start).astype(np.float32)
        plane = TSNE(
            2,
            perplexity=min(30.0, len(points) / 4.0),
            init=start,
            learning_rate='auto',
            random_state=0,
        ).fit_transform(every)
        marks = np.full((len(means), 2), np.nan)
        marks[there] = plane[len(points) :]
        _save(
            plots.scatter(
                plane[: len(points)],
                self._evaluation.labels,
                marks,
                't-SNE of %d-dimensional embeddings' % points.shape[1],
            ),
            self._path('tsne.png'),
        )

    def _draw_confusion(self):
        _save(
            plots.confusion(
                self._evaluation.all_labels,
                self._evaluation.all_predictions,
                self.handle.num_classes,
            ),
            self._path('confusion.png'),
        )


def _save(figure, path):
    write_atomically(path, plots.png_bytes(figure))
