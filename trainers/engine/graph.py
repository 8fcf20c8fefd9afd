"""The graph of a run: model, objective, training step and evaluation, as named tensors and
operations. No session, no loop.

Name scopes serve readers of the graph in TensorBoard. None is open where variables are created,
because checkpoints identify variables by name.
"""

from __future__ import annotations

from typing import Any, Collection

from gitloss import data, layers
from gitloss.backend import Tensor, tf
from gitloss.centers import CenterTable
from gitloss.data import DataSpec, Source
from gitloss.sharding import ShardedCenterTable, all_finite
from trainers import devices
from trainers.devices import npu
from trainers.engine import optimizers, schedules
from trainers.engine.freezing import of_backbone, trainable
from trainers.engine.inference import class_ranges, network
from trainers.engine.objective import Objective
from trainers.engine.step import Step
from trainers.options import Options
from trainers.workers.group import OneWorker

PIECE_BYTES = 1 << 20  # of the centers that are read or set at once


class TrainingGraph:
    """Builds a network, its training step and its evaluation into the current graph.

    Args:
      options: the settings of the model.
      spec: what the network knows of the data.
      device: where the graph runs.
      group: the workers that this process is one of; None: it works alone.
      source: the training images; None: only an evaluation is built.
    """

    def __init__(
        self,
        options: Options,
        spec: DataSpec,
        device: devices.Device,
        group: OneWorker | None = None,
        source: Source | None = None,
    ) -> None:
        self._options, self._device, self._group = options, device, group or OneWorker()
        self._num_classes = spec.num_classes
        self._rows = options.batch_size // self._group.size
        self.model, self.classifier = network(
            options, spec, self._rows, device.network_dtype, self._group
        )
        layers.refuse_foreign_modes(self.model)
        self.center_table = self._table_of(spec)
        self.center_table.build([None, options.embedding_dim])
        # The variables that an evaluation needs of a checkpoint.
        self.weights = self.model.weights + self.classifier.weights + self.center_table.weights
        self._objective = Objective(
            options,
            self.classifier,
            self.center_table,
            self._group,
            # An NPU has no float64 and no loops.
            method='unrolled' if device.name == 'npu' else None,
        )
        if source is not None:
            self._build_training(source)
        self._build_evaluation()

    def _table_of(self, spec: DataSpec) -> CenterTable:
        options, group = self._options, self._group
        settings: dict[str, Any] = {
            'alpha': options.alpha,
            'distance': options.distance,
            'name': 'center_loss',
        }
        if not options.shard_classes or group.size == 1:
            return CenterTable(spec.num_classes, **settings)
        places = class_ranges(options, spec, group.size).whole()
        return ShardedCenterTable(
            spec.num_classes,
            places,
            group.rank,
            group.all_reduce,
            has_unique=self._device.name != 'npu',
            **settings,
        )

    @property
    def shards(self) -> list[Tensor]:
        """The variables that are this worker's part of a tensor over all classes."""
        return [variable for variable in self.weights if getattr(variable, 'gitloss_shard', None)]

    def _batches(self, source: Source) -> tuple[Tensor, Tensor]:
        """This worker's part of a batch: float32 images, labels."""
        options, group = self._options, self._group
        stream = data.BatchStream(
            source,
            options.batch_size,
            options.seed,
            group.rank,
            group.size,
            data.sampler(options.sampler, options.images_per_identity, self._num_classes),
            options.augment,
            options.augment_until,
        )
        self.first_step = tf.placeholder(tf.int64, [], name='first_step')
        with tf.name_scope('batches'):
            self.iterator = tf.data.make_initializable_iterator(stream.dataset(self.first_step))
            images, labels = self.iterator.get_next()
            return tf.cast(images, tf.float32), labels

    def _build_training(self, source: Source) -> None:
        options = self._options
        batch = self._batches(source)
        self.global_step = tf.train.get_or_create_global_step()
        # With --unfreeze_at there are two steps, of which the second trains all variables.
        patterns = [options.freeze, ''] if options.unfreeze_at else [options.freeze]
        names = [{v.op.name for v in self._trained(pattern)} for pattern in patterns]
        optimizer = self._optimizer(late=names[-1] - names[0])
        self._steps = [
            Step(
                self.model,
                self.classifier,
                self.center_table,
                self._objective,
                options,
                self._device,
                self._group,
                batch,
                optimizer,
                self.loss_scaled,
                self._trained(pattern),
            )
            for pattern in patterns
        ]
        self.load_loop = None
        if options.iterations_per_loop > 1:
            step = self._steps[0]
            step.train_op, self.load_loop = npu.sunk(step.train_op, options.iterations_per_loop)
        self.enter(0)
        with tf.name_scope('weights_are_finite'):
            is_finite = tf.reduce_all(all_finite(self._steps[-1].updated))
            if self.shards:  # of which each worker sees its own alone
                is_finite = self._group.all_gather(tf.cast(is_finite, tf.int32)[None])
            self.weights_are_finite = tf.reduce_all(tf.cast(is_finite, tf.bool))

    def enter(self, done: int) -> None:
        """Makes the attributes those of the step that follows `done` steps: `train_op`,
        `steps_done`, `step_fetches`, `embeddings` and `gradient_products`, see `Step`.
        """
        step = self._steps[-1 if done >= self._options.unfreeze_at else 0]
        self.train_op, self.steps_done = step.train_op, step.steps_done
        self.step_fetches, self.embeddings = step.fetches, step.embeddings
        self.gradient_products = step.gradient_products

    def _trained(self, pattern: str) -> list[Tensor]:
        return trainable(self.model, self.classifier.weights, pattern)

    def _optimizer(self, late: Collection[str]) -> Any:
        options = self._options
        self.learning_rate = tf.get_variable(
            'learning_rate',
            [],
            initializer=tf.constant_initializer(options.learning_rate),
            trainable=False,
            use_resource=True,
        )
        self.new_learning_rate = tf.placeholder(tf.float32, [], name='new_learning_rate')
        self.set_learning_rate = tf.assign(self.learning_rate, self.new_learning_rate)
        with tf.name_scope('schedule'):
            self.rate_of_step = self.learning_rate * schedules.factor(
                self.global_step,
                options.schedule,
                options.steps,
                options.warmup_steps,
                options.decay_steps,
                options.decay_rate,
            )
        plain = optimizers.optimizer(self.rate_of_step, options, of_backbone(self.model), late)
        optimizer = devices.loss_scaled(plain, options, self._device)
        self.loss_scaled = optimizer is not plain
        return optimizer

    def _build_evaluation(self) -> None:
        self.eval_images = tf.placeholder(tf.uint8, self.model.input.shape, name='images')
        embeddings = self.model(tf.cast(self.eval_images, tf.float32))
        self.eval_labels = tf.placeholder(tf.int32, [self._rows], name='input_labels')
        all_labels = self._group.all_gather(self.eval_labels)
        softmax, predictions = self._objective.softmax(embeddings, self.eval_labels, all_labels)
        self.eval_fetches = {
            'embeddings': self._group.all_gather(embeddings),
            'predictions': self._group.all_gather(predictions),
        }
        own_centers = self.center_table.rows(all_labels)
        weights = self._objective.weights()
        terms = self._objective.terms(softmax, embeddings, all_labels, own_centers, weights)
        self.eval_losses, _ = self._objective.reduced(terms, [], weights)
        self._build_center_access()

    def _build_center_access(self) -> None:
        """Centers are read and set in pieces of one size, because shapes are static."""
        dim = self._options.embedding_dim
        rows = min(self._num_classes, max(1, PIECE_BYTES // (4 * dim)))
        self.piece_classes = tf.placeholder(tf.int32, [rows], name='piece_classes')
        self.piece_rows = tf.placeholder(tf.float32, [rows, dim], name='piece_rows')
        self.center_rows = self.center_table.rows(self.piece_classes)
        self.set_center_rows = self.center_table.set_rows(self.piece_classes, self.piece_rows)
        self.centers_moved = self.center_table.moved()
