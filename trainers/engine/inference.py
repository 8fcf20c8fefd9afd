"""The network for inference: without labels, losses and centers."""

from __future__ import annotations

from gitloss.data import DataSpec
from trainers.engine.graph import network
from trainers.options import Options


class Inference:
    """Builds into the current graph, for batches of one size.

    Attributes:
      images: the placeholder, float32 [batch, height, width, channels], raw pixels.
      embeddings: float32 [batch, dim].
      logits: float32 [batch, classes].
      weights: the variables.
    """

    def __init__(self, options: Options, spec: DataSpec, batch_size: int) -> None:
        model, classifier = network(options, spec, batch_size)
        self.images, self.embeddings = model.input, model.output
        self.logits = classifier.logits(model.output)
        self.weights = model.weights + classifier.weights
