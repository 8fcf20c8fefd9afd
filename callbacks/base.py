"""The interface of callbacks, and of the handle through which they use the model.

Hooks have Keras's names. An *epoch* ends with a measurement, every `--update_centers` steps:
measurements are computed and read in `on_epoch_end`. A call passes one `logs` dictionary to all
callbacks in the order of the list: callbacks that measure come before those that read.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, Dict, Iterator, Mapping, Sequence, Tuple

import numpy as np

from gitloss import files
from gitloss.metrics import Metric

if TYPE_CHECKING:
    from gitloss.data import Source

Batch = Tuple[np.ndarray, np.ndarray, np.ndarray, Dict[str, float]]  # see Handle.sweep
Logs = Any  # {name: value}, shared by all callbacks of a list; may be None


class Handle:
    """What a callback can use during a measurement, in training and in evaluation.

    Attributes:
      batch_size: images in a global batch.
      num_classes: classes of the data set.
      options: {flag: plain value}.
      step: number of training steps of the current weights.
      metrics: {name: Metric}, declared by the run and its callbacks; complete from `build` on.
      run_dir: the folder of the run's files. A training that asks for it when it is gone, or when
        another folder has its name, ends with FolderLost: do so each time, before you write.
      rank, workers, is_chief: the number of this worker, the number of workers, and whether this
        worker writes the files.
    """

    batch_size: int = 0
    num_classes: int = 0
    options: Mapping[str, Any] = {}
    step: int = 0
    metrics: Mapping[str, Metric] = {}
    run_dir: str = ''
    rank, workers, is_chief = 0, 1, True

    @abc.abstractmethod
    def sweep(
        self, source: Source, with_losses: bool = False, with_predictions: bool = True
    ) -> Iterator[Batch]:
        """A forward pass over a source in order, with the current weights.

        The workers share the work of each batch, and each gets the whole result: every worker must
        do the same sweeps.

        Yields:
          (embeddings float32 [n, dim], predictions int [n], labels int32 [n], losses) per batch of
          the training batch size. `losses` are the batch's scalars (`loss`, `softmax_loss`,
          `center_loss`, `git_loss`), empty without `with_losses`. `predictions` is empty without
          `with_predictions`, which saves the logits of all classes. A short last batch is padded
          with samples from the beginning of the source, which count in its losses only.
        """

    @abc.abstractmethod
    def center_rows(self, classes: np.ndarray) -> np.ndarray:
        """The centers of the center and git losses: float32 [n, dim] of the classes int [n]."""

    @abc.abstractmethod
    def centers_moved(self) -> float:
        """The fraction of the classes whose center has been moved by a sample so far."""

    def set_centers(self, classes: np.ndarray, rows: np.ndarray) -> None:
        """Replaces the centers of the classes, different ones, int [n], by `rows`, float [n, dim].

        Every worker must set the same.
        """


class RunHandle(Handle):
    """What a callback can use during training, in addition.

    Attributes:
      steps: steps of the whole run.
      every: steps between two measurements.
      learning_rate: the base rate, before --schedule and --warmup_steps. It can be set from
        on_train_begin on, and is saved in checkpoints.
      rate_variable: the float32 variable behind `learning_rate`, from `build` on.
      net: the trainers.engine.graph.TrainingGraph, from `build` on; its tensors can be fetched.
      session: the tf.Session, from on_train_begin on. Its graph is finalized: create operations in
        `build`.
    """

    steps: int = 0
    every: int = 0
    learning_rate: float
    rate_variable: Any
    net: Any
    session: Any

    def passed(self, every: int) -> bool:
        """Whether the last session.run reached or passed a multiple of `every` steps.

        On an NPU with several steps per call, an overflow can make a call end between multiples.
        """
        return self.step % every == 0

    def write(self, name: str, content: str | bytes) -> None:
        """Writes a file of the run completely or not at all.

        Args:
          name: relative to the run's folder; missing folders in it are created.

        Raises:
          OSError: it cannot be written; an earlier file of this name is unchanged.
        """
        files.write_below(self.run_dir, name, content)

    @abc.abstractmethod
    def save(self, metrics: Mapping[str, float] | None = None) -> str:
        """Writes a checkpoint of this step into the run's series. Returns its path. All workers
        call it; the chief writes.

        Args:
          metrics: the values by which the best checkpoint is chosen.

        Raises:
          OSError: the disk is full.
        """

    @abc.abstractmethod
    def save_aside(self, path: str, metrics: Mapping[str, float] | None = None) -> str:
        """Writes a checkpoint of this step to `path`. --resume ignores it, and it is never pruned.

        An existing checkpoint at `path` is replaced. Returns the path. All workers call it.

        Raises:
          OSError: the disk is full.
          ValueError: `path` exists and is not a checkpoint.
        """

    def stop(self, reason: str) -> None:
        """Ends the training after this step and a measurement."""

    @abc.abstractmethod
    def throughput(self) -> dict[str, float | None]:
        """{'images_per_sec', 'sec_per_step'} over the training steps only.

        The first step of the process, which includes compilation, does not count.
        """


class Callback:
    """The base class of callbacks; its hooks do nothing.

    With several workers, every worker runs the list. A callback must make the same decisions on all
    of them: from logs and sweeps, which are the same on all workers, not from a clock.

    Attributes:
      handle: set before `build`; in an evaluation it is a Handle, not a RunHandle.
      metrics: declarations of the numbers that it adds to the logs of a measurement.
      chief_only: True for a callback that only writes; it runs on the chief only.
      intervals: {name: number of steps} of the periods of a callback. On a device that runs several
        steps per call, they must be multiples of that number.
    """

    handle: RunHandle
    metrics: Sequence[Metric] = ()
    chief_only: bool = False
    intervals: Mapping[str, int] = {}

    def build(self) -> None:
        """The only place to create graph operations: the graph is then finalized."""

    def fetches(self, step: int) -> Mapping[str, Any]:
        """{name: tensor} to fetch in the `session.run` of step `step`.

        The values are in the logs of on_train_batch_end. On devices that compile each set of
        fetches (NPU), the names must not depend on the step.
        """
        return {}

    def on_train_begin(self, logs: Logs = None) -> None:
        """Once, before the first step."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before step `batch`, counted from 1; with --iterations_per_loop, the last of its call."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After step `batch`; with --iterations_per_loop, the last of its call.

        logs: `loss`, `softmax_loss`, `center_loss`, `git_loss`, `git_floor`, `center_drift`,
        `accuracy` of the step's batch, `learning_rate`, `images_per_sec`, and the values of
        `fetches`.
        """

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Before the first step after a measurement."""

    def on_test_begin(self, logs: Logs = None) -> None:
        """Before the sweeps of a measurement."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """At each measurement, numbered from 1.

        logs: `step`, `train_loss`, `train_acc`, ... and the additions of earlier callbacks.
        """

    def on_rewind(self, step: int) -> None:
        """After a rollback to the last checkpoint, at `step`, and after `load_state`."""

    def on_train_end(self, logs: Logs = None) -> None:
        """Once, after the last step of a training that was not aborted.

        logs: the last measurement.
        """

    def close(self) -> None:
        """The last call after `build`, also after an error: releases files and threads."""

    def state(self) -> Any:
        """The state of this callback for a checkpoint: plain JSON values, or None."""

    def load_state(self, state: Any) -> None:
        """Restores what `state` returned, before on_train_begin and at a rollback."""


def as_callback(thing: Any) -> Callback:
    """A Callback unchanged, or a `tf.keras.callbacks` object in a wrapper.

    Raises:
      ValueError: it is neither, or a Keras callback that cannot work here.
    """
    if isinstance(thing, Callback):
        return thing
    # Imports TensorFlow, which a list without Keras callbacks does not need.
    from callbacks.keras import KerasCallback

    return KerasCallback(thing)
