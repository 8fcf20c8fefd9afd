"""Pictures of the embeddings during the run, and of the run at its end."""

from __future__ import annotations

import importlib.util
import io
import os
import re
from typing import Any, Callable

import numpy as np

from callbacks.base import Callback
from callbacks.figures import Figures
from callbacks.history import History
from gitloss import metrics
from gitloss.errors import log
from gitloss.figures import encoding, plots, view
from gitloss.figures.confusion import MOST_CLASSES
from gitloss.files import write_atomically


class Pictures(Callback):
    """Writes `plots/scatter-<step>.png` at each measurement and all other pictures at the end.

    At the end the scatters are drawn again with one pair of axes for the whole run; embeddings of
    more than two dimensions on the principal axes of the last measurement. Besides: `scatter.gif`,
    `losses.png` and `distances.png` (over the steps), `pairs.png` (distances of genuine and of
    impostor pairs), `confusion.png` (up to 1000 classes) and, if asked for, `tsne.png` of the last
    measurement. The data of the scatters is kept in `plots/frames/`, so that a resumed run has it
    too. A failing picture is a warning, once per kind, and never stops the training.

    Args:
      figures: the Figures of each measurement.
      history: has the logs of all measurements.
      projection: "pca", or "tsne" for that picture too.

    Raises:
      ValueError: "tsne" without scikit-learn.
    """

    chief_only = True

    def __init__(self, figures: Figures, history: History, projection: str = 'pca') -> None:
        if projection == 'tsne' and not importlib.util.find_spec('sklearn'):
            raise ValueError(
                '--projection: expected scikit-learn to be installed for tsne. Received: none; '
                'pip install scikit-learn'
            )
        self.figures, self._history, self._projection = figures, history, projection
        self._evaluation, self._centers = figures.evaluation, figures.centers
        self._warned: set[str] = set()

    def _guarded(self, what: str, draw: Callable[..., None], *args: Any) -> None:
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

    def _save(self, figure, name):
        write_atomically(self._path(name), encoding.png_bytes(figure))

    def on_train_begin(self, logs: Any = None) -> None:
        self.on_rewind(self.handle.step)

    def on_rewind(self, step: int) -> None:
        self._guarded('frames', self._remove_frames_after, step)

    def _remove_frames_after(self, step):
        """The measurements after `step` come again."""
        for number, path in self.frames():
            if number > step:
                os.remove(path)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._guarded('scatter', self._write_scatter, logs['step'])

    def _write_scatter(self, step):
        held = self._evaluation
        # Into memory first: on a full disk zipfile ends with a traceback.
        content = io.BytesIO()
        np.savez(
            content,
            points=held.embeddings,
            labels=held.labels,
            means=self._centers.means.astype(np.float32),
            title=np.array(self.figures.title),
        )
        write_atomically(self._path('frames', f'frame-{step:08d}.npz'), content.getvalue())
        write_atomically(self._path(f'scatter-{step:06d}.png'), self.figures.scatter())

    def frames(self) -> list[tuple[int, str]]:
        """[(step, path), ...] of the data of all scatters, in the order of the steps."""
        folder = os.path.join(self.handle.run_dir, 'plots', 'frames')
        names = os.listdir(folder) if os.path.isdir(folder) else []
        found = (re.match(r'frame-(\d{8,})\.npz$', name) for name in names)
        return sorted(
            (int(name.group(1)), os.path.join(folder, name.group())) for name in found if name
        )

    def on_train_end(self, logs: Any = None) -> None:
        self._guarded('animation', self._draw_run)
        self._guarded('curves', self._draw_curves)
        if self._evaluation.embeddings is not None:
            self._guarded('pairs', self._draw_pairs)
            if self.handle.num_classes <= MOST_CLASSES:
                self._guarded('confusion', self._write_confusion)
            if self._projection == 'tsne':
                self._guarded('t-SNE', self._draw_tsne)

    def _draw_run(self):
        frames = []
        for step, path in self.frames():
            with np.load(path, allow_pickle=False) as archive:
                frames.append((step, {name: archive[name] for name in archive.files}))
        if not frames:
            return
        plane = view.plane(frames[-1][1]['points'])
        for _, frame in frames:
            frame['points'], frame['means'] = plane(frame['points']), plane(frame['means'])
        limit = max(view.extent(frame['points'], frame['means']) for _, frame in frames)
        figures = []
        for step, frame in frames:
            points, labels, means = frame['points'], frame['labels'], frame['means']
            figures.append(plots.scatter(points, labels, means, str(frame['title']), limit))
            self._save(figures[-1], f'scatter-{step:06d}.png')
        write_atomically(self._path('scatter.gif'), encoding.gif_bytes(figures))

    def _draw_curves(self):
        """Losses: the training loss and its terms, and the validation loss. Distances: those with a
        label.
        """
        declared = self.handle.metrics.values()
        losses = [one for one in declared if one.part and not one.higher_is_better]
        losses = [one for one in losses if one.label or one.group == 'train']
        self._draw_lines(losses, 'losses.png', 'training loss and its terms', 'loss')
        distances = [one for one in declared if one.label and one.group == 'distance']
        title, ylabel = 'distances of the training set', 'Euclidean distance'
        self._draw_lines(distances, 'distances.png', title, ylabel)

    def _draw_lines(self, metrics, name, title, ylabel):
        """Metrics over the steps, on a logarithmic axis: they differ by factors of ten and more."""
        points = {
            metric.label or metric.title: [
                (row['step'], row[metric.name]) for row in self._history.rows if metric.name in row
            ]
            for metric in metrics
        }
        lines = {label: tuple(zip(*pairs)) for label, pairs in points.items() if pairs}
        self._save(plots.curves(lines, title, ylabel, log_scale=True), name)

    def _draw_pairs(self):
        held = self._evaluation
        genuine, impostor = metrics.pair_distances(held.embeddings, held.labels)
        self._save(plots.distances(genuine, impostor), 'pairs.png')

    def _write_confusion(self):
        write_atomically(self._path('confusion.png'), self.figures.confusion())

    def _draw_tsne(self):
        """Beside the scatter, no substitute for it: distances between groups mean nothing here."""
        from sklearn.manifold import TSNE

        points, means = self._evaluation.embeddings, self._centers.means
        has_mean = np.isfinite(means).all(axis=1)
        rows = np.concatenate([points, means[has_mean]]).astype(np.float32)
        start: Any = 'random'
        if rows.shape[1] > 1:
            # The plane of largest spread; init='pca' differs between versions of scikit-learn.
            origin, axes = view.principal_axes(rows.astype(np.float64))
            start = (rows - origin).dot(axes)
            start = (1e-4 / max(start[:, 0].std(), 1e-12) * start).astype(np.float32)
        settings = {'init': start, 'learning_rate': 'auto', 'random_state': 0}
        plane = TSNE(2, perplexity=min(30.0, len(points) / 4.0), **settings).fit_transform(rows)
        marks = np.full((len(means), 2), np.nan)
        marks[has_mean] = plane[len(points) :]
        points, labels = plane[: len(points)], self._evaluation.labels
        title = f't-SNE of {rows.shape[1]}-dimensional embeddings'
        self._save(plots.scatter(points, labels, marks, title), 'tsne.png')
