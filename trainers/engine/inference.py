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


def embedding_model(
    options: Options, spec: DataSpec, batch_size: int | None, dtype: str = 'float32'
) -> keras.Model:
    """The network that the options describe, up to the embeddings, for `batch_size` images (None:
    any number). `dtype` is that of the backbone's computations.

    Raises:
      ValueError: an unknown network, or images too small for it.
    """
    backbone(options.model, '--model')
    return models.build(
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


def network(
    options: Options,
    spec: DataSpec,
    batch_size: int | None,
    dtype: str = 'float32',
    group: OneWorker | None = None,
) -> tuple[keras.Model, heads.Classifier | ShardedClassifier]:
    """The `embedding_model` and the classifier that the options describe. With --shard_classes a
    worker of a group has its part of the classifier.

    Raises:
      ValueError: as of `embedding_model`, or an unknown head.
    """
    slope, head = backbone(options.model, '--model').slope, _head(options)
    model = embedding_model(options, spec, batch_size, dtype)
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
    the backbone's computations. Without the `classifier` nothing grows with the number of classes.

    Attributes:
      images: the placeholder, float32 [batch, height, width, channels], raw pixels.
      embeddings: float32 [batch, dim].
      logits: float32 [batch, classes]; None without the classifier.
      weights: the variables.
    """

    def __init__(
        self,
        options: Options,
        spec: DataSpec,
        batch_size: int | None,
        dtype: str = 'float32',
        classifier: bool = True,
    ) -> None:
        if classifier:
            model, classes = network(options, spec, batch_size, dtype)
            self.logits = classes.logits(model.output)
            self.weights = model.weights + classes.weights
        else:
            model, self.logits = embedding_model(options, spec, batch_size, dtype), None
            self.weights = model.weights
        self.images, self.embeddings = model.input, model.output
