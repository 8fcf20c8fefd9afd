"""Pictures of each measurement, and of the whole run at its end."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import os
import re
import zipfile
from typing import Any, Iterable

import numpy as np

from callbacks.attempts import Attempts
from callbacks.base import Callback
from callbacks.figures import Figures
from callbacks.gradients import COSINES, NORMS
from callbacks.history import History
from gitloss import files, metrics
from gitloss.errors import check
from gitloss.figures import confusion, encoding, plots, view
from gitloss.metrics import Metric

_ANIMATED = (
    100  # frames of the animation: more would take memory, and longer than a minute to watch
)


def frames_of(run_dir: str) -> list[tuple[int, str]]:
    """[(step, path), ...] of the data of all scatter plots of a run, in the order of the steps."""
    folder = os.path.join(run_dir, 'plots', 'frames')
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = (re.fullmatch(r'frame-([0-9]{8,})\.npz', name) for name in names)
    return sorted(
        (int(match.group(1)), os.path.join(folder, match.group())) for match in matches if match
    )


def read_frame(path: str) -> dict[str, np.ndarray]:
    """The data of a scatter plot: points float32 [n, dim], labels int [n], means float32
    [classes, dim], title.

    Raises:
      OSError, ValueError, zipfile.BadZipFile, zlib.error or EOFError: it cannot be read.
    """
    with files.open_regular(path, os.O_RDONLY, 'rb') as file:
        # Of anything else NumPy 1.18 prints a traceback when it is collected.
        check(zipfile.is_zipfile(file), path, 'an .npz file', 'another one')
        file.seek(0)
        return dict(np.load(file, allow_pickle=False))


class Pictures(Callback):
    """Writes `plots/scatter-<step>.png` at each measurement and all other pictures at the end.

    At the end, the scatter plots are drawn again with the same axes for the whole run; embeddings
    of more than two dimensions are projected on the principal axes of the last measurement. The
    other pictures are `scatter.gif`, `losses.png`, `distances.png`, `gradients.png` and
    `cosines.png` (over the steps), `pairs.png` (distances of genuine and impostor pairs),
    `confusion.png` (up to 1000 classes) and optionally `tsne.png` of the last measurement.
    `plots/frames/` has the data of the scatter plots, also for a resumed run. A picture that fails
    is a warning, once per kind, and never stops the training.

    Args:
      figures: the Figures of each measurement; None, without validation images: only the curves
        over the steps are drawn.
      history: has the logs of all measurements.
      projection: "pca", or "tsne" for `tsne.png` too.

    Raises:
      ValueError: Matplotlib is not installed, or "tsne" without scikit-learn.
    """

    chief_only = True

    def __init__(self, figures: Figures | None, history: History, projection: str = 'pca') -> None:
        if projection == 'tsne' and not importlib.util.find_spec('sklearn'):
            raise ValueError(
                '--projection: expected scikit-learn to be installed for tsne. Received: none; '
                'pip install "scikit-learn>=1.0"'
            )
        # Imported at the first measurement: that it is missing is said before the training.
        check(
            importlib.util.find_spec('matplotlib') is not None,
            'pictures',
            'Matplotlib to be installed',
            'none; pip install -r requirements.txt',
        )
        self.figures: Any = figures
        self._history, self._projection = history, projection
        self._attempt = Attempts(self, 'no picture (%s) at step %d: %s')

    def _write(self, content: bytes, *names: str) -> None:
        self.handle.write(os.path.join('plots', *names), content)

    def on_train_begin(self, logs: Any = None) -> None:
        self.on_rewind(self.handle.step)

    def on_rewind(self, step: int) -> None:
        self._attempt('frames', self._remove_frames_after, step)

    def _remove_frames_after(self, step: int) -> None:
        """The measurements after `step` are repeated."""
        for number, path in self.frames():
            if number > step:
                os.remove(path)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.figures is not None:
            self._attempt('scatter', self._write_scatter, logs['step'])

    def _write_scatter(self, step: int) -> None:
        # In memory: zipfile prints a traceback on a full disk.
        content = io.BytesIO()
        np.savez(
            content,
            points=self.figures.evaluation.embeddings,
            labels=self.figures.evaluation.labels,
            means=self.figures.centers.means.astype(np.float32),
            title=np.array(self.figures.title),
        )
        self._write(content.getvalue(), 'frames', f'frame-{step:08d}.npz')
        self._write(self.figures.scatter(), f'scatter-{step:06d}.png')

    def frames(self) -> list[tuple[int, str]]:
        """See `frames_of`."""
        return frames_of(self.handle.run_dir)

    def on_train_end(self, logs: Any = None) -> None:
        self._attempt('curves', self._draw_curves)
        if self.figures is not None:
            self._draw_points()

    def _draw_points(self) -> None:
        self._attempt('animation', self._draw_run)
        self._attempt('pairs', self._draw_pairs)
        is_small = self.handle.num_classes <= confusion.MOST_CLASSES
        if is_small and self.figures.evaluation.has_classes:
            self._attempt(
                'confusion', lambda: self._write(self.figures.confusion(), 'confusion.png')
            )
        if self._projection == 'tsne':
            self._attempt('t-SNE', self._draw_tsne)

    def _draw_run(self) -> None:
        """One frame at a time: neither frames nor figures are kept, whatever their number."""
        frames = self.frames()
        if not frames:
            return
        plane = view.plane(read_frame(frames[-1][1])['points'])
        limit = max(
            view.extent(plane(frame['points']), plane(frame['means']))
            for frame in (read_frame(path) for _, path in frames)
        )
        # Counted from the end: the last frame is among them.
        animated = len(frames) - 1 - metrics.evenly_spaced(len(frames), _ANIMATED)
        images = []
        for number, (step, path) in enumerate(frames):
            frame = read_frame(path)
            points, means = plane(frame['points']), plane(frame['means'])
            figure = plots.scatter(points, frame['labels'], means, str(frame['title']), limit)
            self._write(encoding.png_bytes(figure), f'scatter-{step:06d}.png')
            if number in animated:
                images.append(encoding.gif_frame(figure))
        self._write(encoding.gif_bytes(images), 'scatter.gif')

    def _draw_curves(self) -> None:
        """Losses and terms; distances with a label, and those of validation images; gradients."""
        declared = self.handle.metrics.values()
        losses = [
            metric
            for metric in declared
            if metric.part
            and not metric.higher_is_better
            and (metric.label or metric.group == 'train')
        ]
        self._draw_lines(losses, 'losses.png', 'training loss and its terms', 'loss')
        distances = [metric for metric in declared if metric.label and metric.group == 'distance']
        names = {metric.name: metric.label for metric in distances}
        distances += [
            dataclasses.replace(metric, label=f'validation {names[metric.part]}')
            for metric in declared
            if metric.group == 'valid' and metric.part in names
        ]
        self._draw_lines(distances, 'distances.png', 'distances of classes', 'Euclidean distance')
        self._draw_gradients()

    def _draw_gradients(self) -> None:
        """Norms and cosines of the gradients of the terms, in a picture each, if there are any."""
        for declared, name, title, ylabel, limits in (
            (NORMS, 'gradients.png', 'gradients of the weighted terms', 'norm', None),
            (COSINES, 'cosines.png', 'angles between the gradients', 'cosine', (-1.05, 1.05)),
        ):
            lines = [  # the rest of the title is on the axis
                dataclasses.replace(metric, label=metric.title.split(', ')[1].replace(' and', ','))
                for metric in declared
                if any(metric.name in row for row in self._history.rows)
            ]
            if lines:
                self._draw_lines(lines, name, title, ylabel, limits)

    def _draw_lines(
        self, metrics: Iterable[Metric], name: str, title: str, ylabel: str, limits: Any = None
    ) -> None:
        """Metrics over the steps, which may differ by orders of magnitude."""
        points = {
            metric.label or metric.title: [
                (row['step'], row[metric.name]) for row in self._history.rows if metric.name in row
            ]
            for metric in metrics
        }
        lines = {label: tuple(zip(*pairs)) for label, pairs in points.items() if pairs}
        self._write(encoding.png_bytes(plots.curves(lines, title, ylabel, limits)), name)

    def _draw_pairs(self) -> None:
        pairs = metrics.pair_distances(
            self.figures.evaluation.embeddings, self.figures.evaluation.labels
        )
        self._write(encoding.png_bytes(plots.distances(*pairs)), 'pairs.png')

    def _draw_tsne(self) -> None:
        """t-SNE complements the scatter plot: its distances between clusters have no meaning."""
        from sklearn.manifold import TSNE

        points, means = self.figures.evaluation.embeddings, self.figures.centers.means
        has_mean = np.isfinite(means).all(axis=1)
        rows = np.concatenate([points, means[has_mean]]).astype(np.float32)
        start: Any = 'random'
        if rows.shape[1] > 1:
            # The principal plane; init='pca' differs between versions of scikit-learn.
            origin, axes = view.principal_axes(rows.astype(np.float64))
            start = (rows - origin).dot(axes)
            start = (1e-4 / max(start[:, 0].std(), 1e-12) * start).astype(np.float32)
        plane = TSNE(
            2,
            perplexity=min(30.0, len(points) / 4.0),
            init=start,
            learning_rate='auto',
            random_state=0,
        ).fit_transform(rows)
        marks = np.full((len(means), 2), np.nan)
        marks[has_mean] = plane[len(points) :]
        figure = plots.scatter(
            plane[: len(points)],
            self.figures.evaluation.labels,
            marks,
            f't-SNE of {rows.shape[1]}-dimensional embeddings',
        )
        self._write(encoding.png_bytes(figure), 'tsne.png')
