"""The graph and the session of a training or an evaluation, alone or as one of a group."""

from __future__ import annotations

from typing import Any, Callable, Sequence

from gitloss.backend import tf
from gitloss.data import DataSpec, Source
from gitloss.errors import Interrupted
from trainers.devices import Device
from trainers.engine.graph import TrainingGraph
from trainers.options import Options
from trainers.workers.group import OneWorker


class Runtime:
    """Owns the graph and the session of this process, and counts their training steps.

    Args:
      options: the settings of the model.
      spec: what the graph knows of the data.
      device: where the session runs.
      group: the workers that this process is one of; None: it works alone.
      requests: () -> (signal received or 0, whether to save), the requests of this worker. Every
        run sends them to all workers.

    Attributes:
      net: the TrainingGraph, once built.
      session: the tf.Session, once open.
      step: number of training steps that led to the variables of the session.
    """

    net: TrainingGraph

    def __init__(
        self,
        options: Options,
        spec: DataSpec,
        device: Device,
        group: OneWorker | None = None,
        requests: Callable[[], Sequence[int]] = lambda: (0, 0),
    ) -> None:
        self.options, self.spec, self.device = options, spec, device
        self.group: OneWorker = group or OneWorker()
        self.session: Any = None
        # Step before the last run; -1, because 0 is a multiple of every interval.
        self.step, self._step_before = 0, -1
        self._requests = requests
        self._agreed: Sequence[int] = (0, 0)

    @tf.autograph.experimental.do_not_convert  # its files in TMPDIR would outlive a SIGKILL
    def build(self, source: Source | None = None) -> TrainingGraph:
        """Builds the model into the current graph; without a `source` only its evaluation."""
        self.net = TrainingGraph(self.options, self.spec, self.device, self.group, source)
        return self.net

    def finish_build(self) -> None:
        """Adds the initializer and the operations of the group, and finalizes the graph."""
        self._initial = tf.global_variables_initializer()
        self.group.build(tf.global_variables())
        tf.get_default_graph().finalize()

    def open(self) -> None:
        """Opens the session."""
        self.session = self.group.session(tf.get_default_graph(), self.device.config)

    def initialise(self) -> None:
        """Gives every variable its initial value."""
        self.session.run(self._initial)
        if self.net.load_loop:
            self.net.load_loop(self.session)

    def run(self, fetches: Any, feeds: dict | None = None) -> Any:
        """A `session.run` that all workers make, with their requests."""
        values, self._agreed = self.group.run(
            self.session, fetches, feeds, self._requests(), f'step {self.step + 1}'
        )
        return values

    @property
    def agreed(self) -> Sequence[int]:
        """The requests that all workers act on: of the last run; of a single worker the current."""
        return self._requests() if self.group.size == 1 else self._agreed

    def raise_if_interrupted(self) -> None:
        """Raises Interrupted if the workers have agreed on a signal."""
        if self.agreed[0]:
            raise Interrupted(self.agreed[0])

    def advance(self, step: int) -> None:
        """The last run reached `step`."""
        self._step_before, self.step = self.step, step

    def rewind(self, step: int) -> None:
        """The variables are restored from a checkpoint of `step`."""
        self._step_before = self.step = step

    def passed(self, every: int) -> bool:
        """Whether the last run reached a multiple of `every` steps, or passed one."""
        return self.step // every > self._step_before // every
