"""What a callback is, and what it may ask of the model it stands beside.

The hooks bear Keras's names. An *epoch* is the stretch between two measurements (`--update_centers`
steps): measurements are made and read in `on_epoch_end`. All hooks of a list share one `logs`
dictionary per call, in the order of the list: callbacks that measure come first, those that read
come after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterator, Mapping, Sequence, Tuple

import numpy as np

from gitloss.metrics import Metric

if TYPE_CHECKING:
    from gitloss.data import Source

Batch = Tuple[np.ndarray, np.ndarray, np.ndarray, Dict[str, float]]  # of a sweep
Logs = Any  # {name: value}, shared by all callbacks of a list; None where a hook is called without


class Handle:
    """What a callback may ask while it measures; training and evaluation both provide it.

    Attributes:
      batch_size: images of a global batch.
      num_classes: classes of the data set.
      options: {flag: plain value}.
      metrics: {name: Metric} of all that the run and its callbacks declare, from `build` on.
      run_dir: the folder of the run's files.
      rank, workers, is_chief: the number of this worker, how many there are, and whether it is the
        one that writes.
    """

    batch_size: int = 0
    num_classes: int = 0
    options: Mapping[str, Any] = {}
    metrics: Mapping[str, Metric] = {}
    run_dir: str = ''
    rank: int = 0
    workers: int = 1
    is_chief: bool = True

    @property
    def step(self) -> int:
        """Training steps behind the weights as they are now."""
        raise NotImplementedError

    def sweep(self, source: Source, with_losses: bool = False) -> Iterator[Batch]:
        """A forward pass over a source in order, with the weights as they are now.

        Several workers share the work of each batch and all see all of it: every worker must make
        the same sweeps.

        Yields:
          (embeddings float32 [n, dim], predictions int [n], labels int32 [n], losses) per batch of
          the training's size. `losses` are the batch's scalars (`loss`, `softmax_loss`,
          `center_loss`, `git_loss`) if asked for, else empty. A short last batch is padded with
          samples from the beginning of the source, which count in its losses and nowhere else.
        """
        raise NotImplementedError

    def centers(self) -> np.ndarray:
        """The centers of the center and git losses: float32 [classes, dim]."""
        raise NotImplementedError

    def center_updates(self) -> np.ndarray:
        """How many samples have moved each center so far: int32 [classes]."""
        raise NotImplementedError

    def set_centers(self, values: np.ndarray) -> None:
        """Replaces the centers by `values`, float [classes, dim]."""
        raise NotImplementedError


class RunHandle(Handle):
    """What a callback may ask of a training besides.

    Attributes:
      run_name: the last part of `run_dir`, the device number by default.
      steps: steps of the whole run.
      every: steps between two measurements.
      learning_rate: the base rate, before --schedule and --warmup_steps. May be set from
        on_train_begin on; a checkpoint keeps it.
    """

    run_name: str = ''
    steps: int = 0
    every: int = 0
    learning_rate: float

    @property
    def net(self) -> Any:
        """The trainers.engine.graph.TrainingGraph, from `build` on: its tensors may be fetched."""
        raise NotImplementedError

    @property
    def rate_variable(self) -> Any:
        """The float32 variable behind `learning_rate`, from `build` on."""
        raise NotImplementedError

    @property
    def session(self) -> Any:
        """The tf.Session, from on_train_begin on.

        Its graph is finalized: operations to run are created in `build`.
        """
        raise NotImplementedError

    def passed(self, every: int) -> bool:
        """Whether the last session.run reached a multiple of `every` steps, or passed one.

        Where an NPU makes several steps per call, an overflow may let a call end between two
        multiples.
        """
        return self.step % every == 0

    def save(self, metrics: Mapping[str, float] | None = None) -> str:
        """Writes a checkpoint of this step into the run's series. Returns its path.

        Args:
          metrics: the values it is judged by when the best checkpoint is chosen.

        Raises:
          OSError: the disk is full.
        """
        raise NotImplementedError

    def save_aside(self, path: str, metrics: Mapping[str, float] | None = None) -> str:
        """Writes a checkpoint of this step to `path`: never continued from, never pruned.

        A checkpoint found at `path` is replaced. Returns the path.

        Raises:
          OSError: the disk is full.
          ValueError: something else than a checkpoint is at `path`.
        """
        raise NotImplementedError

    def stop(self, reason: str) -> None:
        """Ends the training after this step, with a measurement."""
        raise NotImplementedError

    def throughput(self) -> dict[str, float | None]:
        """{'images_per_sec', 'sec_per_step'} of training steps alone.

        The first step of the process, which also compiles, is left out.
        """
        raise NotImplementedError


class Callback:
    """Does nothing at every hook.

    With several workers every one of them has the list, and what a callback decides it must decide
    alike on all: from logs and sweeps, which are the same everywhere, not from a clock.

    Attributes:
      handle: from `build` on; of an evaluation only a Handle.
      metrics: declares what it adds to the logs of a measurement.
      chief_only: True for a callback that only writes; the chief alone has it.
      intervals: {name: steps between two of its turns}. A device that makes several steps per call
        gives control back only every so many steps.
    """

    handle: RunHandle
    metrics: Sequence[Metric] = ()
    chief_only: bool = False
    intervals: Mapping[str, int] = {}

    def build(self) -> None:
        """The only place to create graph operations: the graph is finalized afterwards."""

    def fetches(self, step: int) -> Mapping[str, Any]:
        """{name: tensor} to fetch in the `session.run` of step `step`.

        The values arrive in the logs of on_train_batch_end. Where a new set of fetches means a new
        compilation (NPU), the names must not depend on the step.
        """
        return {}

    def on_train_begin(self, logs: Logs = None) -> None:
        """Once, before the first step."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before step `batch`, counted from 1; with --iterations_per_loop the last of its call."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After step `batch`; with --iterations_per_loop the last of its call.

        logs: `loss`, `softmax_loss`, `center_loss`, `git_loss`, `git_floor`, `center_drift`,
        `accuracy` of the step's batch, `learning_rate`, `images_per_sec`, and the fetched extras.
        """

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Before the first step after a measurement."""

    def on_test_begin(self, logs: Logs = None) -> None:
        """Before the sweeps of a measurement."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """At each measurement, numbered from 1.

        logs: `step`, `train_loss`, `train_acc`, ... and what the callbacks before have added.
        """

    def on_rewind(self, step: int) -> None:
        """After a rollback to the last checkpoint, of `step`; `load_state` was called before."""

    def on_train_end(self, logs: Logs = None) -> None:
        """Once, after the last step of a training that was not broken off.

        logs: the last measurement.
        """

    def close(self) -> None:
        """The last call wherever `build` was called, after an error too: release files, threads."""

    def state(self) -> Any:
        """What a checkpoint must keep of this callback: plain JSON values, or None."""
        return None

    def load_state(self, state: Any) -> None:
        """Takes back what `state` returned, before on_train_begin and at a rollback."""


def as_callback(thing: Any) -> Callback:
    """A Callback as it is, a `tf.keras.callbacks` object in a wrapper.

    Raises:
      ValueError: it is neither, or one of Keras's that cannot work here.
    """
    if isinstance(thing, Callback):
        return thing
    # Imports TensorFlow, which a list without Keras's callbacks does not need.
    from callbacks.keras import KerasCallback

    return KerasCallback(thing)
