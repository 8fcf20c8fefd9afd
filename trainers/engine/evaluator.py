"""A training graph in a session: what measuring a model needs. The trainer is one that also
trains.
"""

from __future__ import annotations

from callbacks.base import Handle
from gitloss import data
from gitloss.backend import tf
from trainers import checkpoints
from trainers.engine.graph import TrainingGraph
from trainers.engine.objective import LOSSES
from trainers.workers.group import OneWorker


class Evaluator(Handle):
    """What callbacks may ask of the graph.

    Args:
      options: a trainers.options.Options.
      spec: a gitloss.data.DataSpec.
      device: a trainers.devices.Device.
      group: the trainers.workers.engines group of workers that this process is one of; None: it
        works alone.
    """

    def __init__(self, options, spec, device, group=None):
        self.options = options.as_dict()
        self.batch_size, self.num_classes = options.batch_size, spec.num_classes
        self._options, self._spec, self._device, self._group = (
            options,
            spec,
            device,
            group or OneWorker(),
        )
        self.rank, self.workers, self.is_chief = (
            self._group.rank,
            self._group.size,
            self._group.is_chief,
        )
        self._graph, self._net, self._session = tf.Graph(), None, None

    def evaluate(self, checkpoint, measure):
        """Restores the weights of a checkpoint, whichever TensorFlow wrote it, and returns
        `measure(self)`.
        """
        with self._graph.as_default():
            self._net = TrainingGraph(self._options, self._spec, self._device)
            saver = tf.train.Saver(self._net.weights)
            self._graph.finalize()
            with tf.Session(graph=self._graph, config=self._device.config) as self._session:
                checkpoints.restore(self._session, saver, checkpoint)
                return measure(self)

    def _run(self, fetches, feeds=None):
        return self._session.run(fetches, feeds)

    def sweep(self, source, with_losses=False):
        fetches = dict(self._net.eval_fetches, **(self._net.eval_losses if with_losses else {}))
        part = data.part_of(self.batch_size, self.rank, self.workers)
        for images, labels, count in data.padded_batches(
            source, self.batch_size, self.rank, self.workers
        ):
            values = self._run(
                fetches, {self._net.eval_images: images, self._net.eval_labels: labels[part]}
            )
            batch_losses = {name: values[name].item() for name in LOSSES if name in values}
            yield (
                values['embeddings'][:count],
                values['predictions'][:count],
                labels[:count],
                batch_losses,
            )

    def centers(self):
        return self._session.run(self._net.center_table.centers)

    def center_updates(self):
        return self._session.run(self._net.center_table.updates)

    def set_centers(self, values):
        self._session.run(self._net.set_centers, {self._net.new_centers: values})

    @property
    def session(self):
        return self._session

    @property
    def rate_variable(self):
        return self._net.learning_rate

    @property
    def learning_rate(self):
        return float(self._session.run(self._net.learning_rate))

    @learning_rate.setter
    def learning_rate(self, value):
        self._session.run(self._net.set_learning_rate, {self._net.new_learning_rate: value})
