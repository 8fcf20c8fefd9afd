"""The graph and the session of a process, and what callbacks can use of them in a measurement."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from callbacks.base import Batch, Handle
from gitloss import data
from gitloss.errors import Interrupted, TrainingError, reason
from trainers import checkpoints
from trainers.checkpoints.rundir import RunDir
from trainers.devices import Device
from trainers.engine.graph import TrainingGraph
from trainers.options import Options
from trainers.workers.group import OneWorker

_NONE = np.empty(0, np.int32)  # predictions


class Runtime(Handle):
    """Owns the graph and the session of this process, and counts the steps of their variables.

    Args:
      settings: the settings of the model.
      spec: what the graph knows of the data.
      device: where the session runs.
      group: the workers that this process is one of; None: it works alone.
      requests: () -> (signal received or 0, whether to save), the requests of this worker. Every
        run sends them to all workers.

    Attributes:
      settings, device, group: as given.
      folder: the folder of the run, which a training enters.
      net: the TrainingGraph, once built.
      session: the tf.Session, once open.
    """

    net: TrainingGraph
    session: Any = None
    _step_before = -1  # of the last run; -1, because 0 is a multiple of every interval

    def __init__(
        self,
        settings: Options,
        spec: data.DataSpec,
        device: Device,
        group: OneWorker | None = None,
        requests: Callable[[], Sequence[int]] = lambda: (0, 0),
    ) -> None:
        self.settings, self._spec, self.device = settings, spec, device
        self.group = group = group or OneWorker()
        self.options, self.folder = settings.as_dict(), RunDir(settings.run_dir)
        self.batch_size, self.num_classes = settings.batch_size, spec.num_classes
        self.rank, self.workers, self.is_chief = group.rank, group.size, group.is_chief
        self._requests = requests
        self._agreed: Sequence[int] = (0, 0)

    @property
    def run_dir(self) -> str:  # type: ignore[override]
        self.folder.check()
        return self.folder.path

    def build(self, source: data.Source | None = None) -> TrainingGraph:
        """Builds the model into the current graph; without a `source` only its evaluation."""
        self.net = TrainingGraph(self.settings, self._spec, self.device, self.group, source)
        return self.net

    def run(self, fetches: Any, feeds: dict | None = None) -> Any:
        """A `session.run` that all workers make, with their requests."""
        values, self._agreed = self.group.run(
            self.session, fetches, feeds, self._requests(), f'step {self.step + 1}'
        )
        return values

    @property
    def agreed(self) -> Sequence[int]:
        """The requests that all workers act on: of the last run; of a single worker the current."""
        return self._requests() if self.workers == 1 else self._agreed

    def reach(self, step: int, before: int) -> None:
        """The variables are now those of `step`; the last run began at the step `before`."""
        self.step, self._step_before = step, before

    def passed(self, every: int) -> bool:
        return self.step // every > self._step_before // every

    def sweep(
        self, source: data.Source, with_losses: bool = False, with_predictions: bool = True
    ) -> Iterator[Batch]:
        net, place = self.net, (self.batch_size, self.rank, self.workers)
        losses = net.eval_losses if with_losses else {}
        fetches = {**net.eval_fetches, **losses}
        if not with_predictions:  # which need the logits of all classes
            del fetches['predictions']
        part = data.part_of(*place)
        for images, labels, count in self._read(data.padded_batches(source, *place)):
            values = self.run(fetches, {net.eval_images: images, net.eval_labels: labels[part]})
            if self.agreed[0]:
                raise Interrupted(self.agreed[0])
            yield (
                values['embeddings'][:count],
                values.get('predictions', _NONE)[:count],
                labels[:count],
                {name: values[name].item() for name in losses},
            )

    def _read(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Images that can no longer be read end the run, as they do in a training step."""
        try:
            yield from batches
        except (OSError, ValueError) as error:
            raise TrainingError(f'step {self.step}: {reason(error)}')

    def center_rows(self, classes: np.ndarray) -> np.ndarray:
        net, classes = self.net, np.asarray(classes, np.int32)
        rows = np.empty((len(classes), net.piece_rows.shape.as_list()[1]), np.float32)
        for piece, places in self._pieces(len(classes)):
            read = self.run(net.center_rows, {net.piece_classes: classes[places]})
            rows[piece] = read[: len(rows[piece])]
        return rows

    def set_centers(self, classes: np.ndarray, rows: np.ndarray) -> None:
        net, classes = self.net, np.asarray(classes, np.int32)
        for _, places in self._pieces(len(classes)):
            feeds = {net.piece_classes: classes[places], net.piece_rows: rows[places]}
            self.session.run(net.set_center_rows, feeds)

    def _pieces(self, count: int) -> Iterator[tuple[slice, np.ndarray]]:
        """The pieces of `count` rows, and their places: as many as the graph takes at once, the
        last piece padded with the last row.
        """
        size = self.net.piece_classes.shape.as_list()[0]
        for start in range(0, count, size):
            places = np.arange(start, start + size)
            yield slice(start, start + size), np.minimum(places, count - 1)

    def centers_moved(self) -> float:
        return float(self.run(self.net.centers_moved)) / self.num_classes


@contextlib.contextmanager
def evaluation(
    checkpoint: checkpoints.Checkpoint, settings: Options, device: Device
) -> Iterator[Handle]:
    """A context with the handle of a checkpoint's model, centers included.

    Args:
      settings: of the checkpoint, see `Options.with_saved`.
    """
    runtime = Runtime(settings, checkpoints.spec_of(checkpoint), device)
    runtime.step = checkpoint.step
    with checkpoints.session_of(checkpoint, runtime.build, device.config) as (_, runtime.session):
        yield runtime
