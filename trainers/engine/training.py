"""The runtime of a training: what its callbacks, its checkpoints and its loop share."""

from __future__ import annotations

from typing import Any, Mapping

from callbacks.base import RunHandle
from gitloss.backend import tf
from gitloss.data import Source
from gitloss.errors import log
from gitloss.metrics import declaration
from gitloss.sharding import ShardedClassifier, initializer, shard_of
from trainers.checkpoints.warm_start import WarmStart
from trainers.engine.graph import TrainingGraph
from trainers.engine.meter import Meter
from trainers.engine.runtime import Runtime
from trainers.engine.saving import Saving

# Numbers in a variable from which it is worth a run of its own to have no second copy.
_LARGE = 1 << 20


class TrainingRuntime(Runtime, RunHandle):
    """A Runtime that trains.

    Attributes:
      meter: the measurements, once built.
      warm_start: loads --init_checkpoint; None if there is none.
      saving: writes the checkpoints; set by the trainer.
      stop_reason: why a callback ends the training; '' if none does.
    """

    saving: Saving
    stop_reason: str = ''

    @tf.autograph.experimental.do_not_convert  # its files in TMPDIR would outlive a SIGKILL
    def build(self, source: Source | None = None) -> TrainingGraph:
        net = super().build(source)
        self.meter = Meter(list(net.step_fetches), self.batch_size, net.loss_scaled)
        self.metrics, self.rate_variable = (
            declaration.by_name(self.meter.metrics),
            net.learning_rate,
        )
        self.steps, self.every = self.settings.steps, self.settings.update_centers
        return net

    def finish_build(self) -> None:
        """Adds the initializer and the operations of the group, and finalizes the graph.

        Raises:
          ValueError: --init_checkpoint is no checkpoint, or one of another model.
        """
        path = self.settings.init_checkpoint
        # The other workers receive the weights.
        self.warm_start = None
        if path and self.is_chief:
            self.warm_start = WarmStart(path, self.net.weights, self._spec)
        variables = tf.global_variables()
        drawn = {one.op.name for one in getattr(self.net.classifier, 'shards', [])}
        large: list[Any] = []
        small: list[Any] = []
        for one in variables:
            if one.op.name not in drawn:
                (large if one.shape.num_elements() >= _LARGE else small).append(one)
        # On a CPU TensorFlow copies constants.
        of_large = initializer if self.device.name == 'cpu' else lambda one: one.initializer
        self._initial = [tf.variables_initializer(small), *map(of_large, large)]
        self.group.build([one for one in variables if not shard_of(one, self.net.shards)])
        tf.get_default_graph().finalize()

    def open(self) -> None:
        """Opens the session, in which every variable has its initial value."""
        self.session = self.group.session(tf.get_default_graph(), self.device.config)
        for initial in self._initial:
            self.session.run(initial)
        if isinstance(self.net.classifier, ShardedClassifier):
            self.net.classifier.initialise(self.session)
        if self.net.load_loop:
            self.net.load_loop(self.session)

    @property
    def learning_rate(self) -> float:
        return float(self.session.run(self.net.learning_rate))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.session.run(self.net.set_learning_rate, {self.net.new_learning_rate: value})

    def save(self, metrics: Mapping[str, float] | None = None) -> str:
        return self.saving.save(metrics)

    def save_aside(self, path: str, metrics: Mapping[str, float] | None = None) -> str:
        return self.saving.save_aside(path, metrics)

    def stop(self, reason: str) -> None:
        log.info('stopping after step %d: %s', self.step, reason)
        self.stop_reason = reason

    def throughput(self) -> dict[str, float | None]:
        return self.meter.throughput()
