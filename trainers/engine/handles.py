"""The handles through which callbacks see an evaluation or a training: callbacks.base."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Mapping

import numpy as np

from callbacks.base import Batch, Handle, RunHandle
from gitloss import data
from gitloss.errors import log
from gitloss.metrics import declaration
from trainers import checkpoints
from trainers.devices import Device
from trainers.engine.graph import TrainingGraph
from trainers.engine.meter import Meter
from trainers.engine.objective import LOSSES
from trainers.engine.runtime import Runtime
from trainers.engine.saving import Saving
from trainers.options import Options


class EvaluationHandle(Handle):
    """A Runtime as callbacks see it while they measure."""

    def __init__(self, runtime: Runtime) -> None:
        options, group = runtime.options, runtime.group
        self._runtime = runtime
        self.options, self.run_dir = options.as_dict(), options.run_dir
        self.batch_size, self.num_classes = options.batch_size, runtime.spec.num_classes
        self.rank, self.workers, self.is_chief = group.rank, group.size, group.is_chief

    @property
    def step(self) -> int:
        return self._runtime.step

    def sweep(self, source: data.Source, with_losses: bool = False) -> Iterator[Batch]:
        runtime, net = self._runtime, self._runtime.net
        fetches = dict(net.eval_fetches, **(net.eval_losses if with_losses else {}))
        place = self.batch_size, self.rank, self.workers
        part = data.part_of(*place)
        for images, labels, count in data.padded_batches(source, *place):
            values = runtime.run(fetches, {net.eval_images: images, net.eval_labels: labels[part]})
            runtime.raise_if_interrupted()
            losses = {name: values[name].item() for name in LOSSES if name in values}
            embeddings = values['embeddings'][:count]
            yield embeddings, values['predictions'][:count], labels[:count], losses

    def centers(self) -> np.ndarray:
        return self._runtime.session.run(self._runtime.net.center_table.centers)

    def center_updates(self) -> np.ndarray:
        return self._runtime.session.run(self._runtime.net.center_table.updates)

    def set_centers(self, values: np.ndarray) -> None:
        net = self._runtime.net
        self._runtime.session.run(net.set_centers, {net.new_centers: values})


@contextlib.contextmanager
def evaluation(
    checkpoint: checkpoints.Checkpoint, options: Options, device: Device
) -> Iterator[EvaluationHandle]:
    """A context with the handle of a checkpoint's model, centers included.

    Args:
      options: from checkpoints.options_of.
    """
    runtime = Runtime(options, checkpoints.spec_of(checkpoint), device)
    with checkpoints.session_of(checkpoint, runtime.build, device.config) as (
        _,
        runtime.session,
    ):
        runtime.rewind(checkpoint.step)
        yield EvaluationHandle(runtime)


class TrainingHandle(EvaluationHandle, RunHandle):
    """A training as callbacks see it.

    Attributes:
      stop_reason: why a callback ends the training; '' if none does.
    """

    def __init__(self, runtime: Runtime, saving: Saving, meter: Meter) -> None:
        super().__init__(runtime)
        self.steps, self.every = runtime.options.steps, runtime.options.update_centers
        self.metrics, self.stop_reason = declaration.by_name(meter.metrics), ''
        self._saving, self._meter = saving, meter

    @property
    def net(self) -> TrainingGraph:
        return self._runtime.net

    @property
    def session(self) -> Any:
        return self._runtime.session

    @property
    def rate_variable(self) -> Any:
        return self.net.learning_rate

    @property
    def learning_rate(self) -> float:
        return float(self.session.run(self.net.learning_rate))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.session.run(self.net.set_learning_rate, {self.net.new_learning_rate: value})

    def passed(self, every: int) -> bool:
        return self._runtime.passed(every)

    def save(self, metrics: Mapping[str, float] | None = None) -> str:
        return self._saving.save(metrics)

    def save_aside(self, path: str, metrics: Mapping[str, float] | None = None) -> str:
        return self._saving.save_aside(path, metrics)

    def stop(self, reason: str) -> None:
        log.info('stopping after step %d: %s', self.step, reason)
        self.stop_reason = reason

    def throughput(self) -> dict[str, float | None]:
        return self._meter.throughput()
