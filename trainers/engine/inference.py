"""The network for inference: without labels, losses and centers."""

from __future__ import annotations

from gitloss import heads
from gitloss import model as models
from gitloss.backbones import backbone
from gitloss.backend import keras
from gitloss.data import DataSpec
from gitloss.errors import check_choice
from gitloss.sharding import ClassRanges, ShardedClassifier
from trainers.options import Options
from trainers.workers.group import OneWorker


def network(
    options: Options,
    spec: DataSpec,
    batch_size: int | None,
    dtype: str = 'float32',
    group: OneWorker | None = None,
) -> tuple[keras.Model, heads.Classifier | ShardedClassifier]:
    """The embedding model, for `batch_size` images (None: any number), and the classifier that the
    options describe. `dtype` is that of the backbone's computations. With --shard_classes a worker
    of a group has its part of the classifier.

    Raises:
      ValueError: an unknown network or head, or images too small for the network.
    """
    slope, head = backbone(options.model, '--model').slope, _head(options)
    model = models.build(
        spec,
        options.model,
        options.embedding_dim,
        batch_size,
        options.seed,
        dtype,
        dropout=options.dropout,
        embedding_norm=options.embedding_norm,
        normalize=options.normalize,
    )
    if options.shard_classes:
        group = group or OneWorker()
        ranges = class_ranges(options, spec, group.size)
        return model, ShardedClassifier(
            head, options.embedding_dim, ranges, group.rank, slope, options.seed
        )
    return model, heads.Classifier(
        head,
        options.embedding_dim,
        spec.num_classes,
        slope,
        options.seed,
    )


def _head(options: Options) -> heads.Head:
    check_choice('--head', options.head, sorted(heads.HEADS))
    margin = None if options.margin < 0 else options.margin
    return heads.head(options.head, margin, options.scale or None)


def class_ranges(options: Options, spec: DataSpec, workers: int) -> ClassRanges:
    """The classes of the shards of all workers.

    Raises:
      ValueError: there are more shards than classes.
    """
    return ClassRanges(spec.num_classes, workers, options.class_shards, options.sample_classes)


class Inference:
    """Builds into the current graph, for batches of one size, or of any (None). `dtype` is that of
    the backbone's computations.

    Attributes:
      images: the placeholder, float32 [batch, height, width, channels], raw pixels.
      embeddings: float32 [batch, dim].
      logits: float32 [batch, classes].
      weights: the variables.
    """

    def __init__(
        self, options: Options, spec: DataSpec, batch_size: int | None, dtype: str = 'float32'
    ) -> None:
        model, classifier = network(options, spec, batch_size, dtype)
        self.images, self.embeddings = model.input, model.output
        self.logits = classifier.logits(model.output)
        self.weights = model.weights + classifier.weights
