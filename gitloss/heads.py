"""Heads over embeddings: plain softmax, and the margin heads ArcFace and CosFace on cosines.

In inference a margin head is a cosine classifier; the margin is part of the training loss only. A
Classifier therefore has two kinds of logits.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from gitloss.backend import Tensor, keras, tf
from gitloss.errors import check_choice
from gitloss.gradients import Observer

# Keeps the gradient of the square root finite for a sample that lies on its class weight.
_SMALLEST_SINE = 1e-6


def arcface_logits(
    cosines: Tensor, labels: Tensor, margin: float = 0.5, scale: float = 64.0
) -> Tensor:
    """scale * cos(theta + margin) at the label, scale * cos(theta) elsewhere (Deng et al., CVPR
    2019, eq. 3).

    Where theta + margin exceeds pi, the target logit is cos(theta) - margin sin(margin), as in the
    authors' code: it keeps decreasing with theta.

    Args:
      cosines: float [batch, classes] in [-1, 1].
      labels: int [batch].
      margin: radians.
      scale: factor of all logits.

    Returns:
      Logits [batch, classes] for softmax cross-entropy.
    """
    angle = tf.constant(margin, cosines.dtype)
    cosine_of_margin, sine_of_margin = tf.cos(angle), tf.sin(angle)
    sines = tf.sqrt(tf.maximum(1.0 - tf.square(cosines), _SMALLEST_SINE**2))
    moved = cosines * cosine_of_margin - sines * sine_of_margin
    target = tf.where(cosines > -cosine_of_margin, moved, cosines - margin * sine_of_margin)
    return scale * tf.where(_is_label(labels, cosines), target, cosines)


def cosface_logits(
    cosines: Tensor, labels: Tensor, margin: float = 0.35, scale: float = 64.0
) -> Tensor:
    """scale * (cos(theta) - margin) at the label, scale * cos(theta) elsewhere (Wang et al., CVPR
    2018, eq. 4). Arguments as for `arcface_logits`.
    """
    return scale * tf.where(_is_label(labels, cosines), cosines - margin, cosines)


def _is_label(labels: Tensor, cosines: Tensor) -> Tensor:
    return tf.cast(tf.one_hot(labels, tf.shape(cosines)[1]), tf.bool)


class Head(NamedTuple):
    """The kind of logits that the softmax cross-entropy reads.

    Attributes:
      margin_logits: a function like `arcface_logits`; None: plain softmax.
      margin, scale: its arguments.
    """

    margin_logits: Callable | None = None
    margin: float = 0.0
    scale: float = 1.0


# Margins and scales are the defaults of the papers.
HEADS = {
    'softmax': Head(),
    'arcface': Head(arcface_logits, 0.5, 64.0),
    'cosface': Head(cosface_logits, 0.35, 64.0),
}


def head(name: str, margin: float | None = None, scale: float | None = None) -> Head:
    """A head by name; a margin or scale of None is the paper's.

    Raises:
      ValueError: unknown name, margin not in [0, pi / 2], scale not above 0.
    """
    default = HEADS[check_choice('head', name, sorted(HEADS))]
    chosen = Head(
        default.margin_logits,
        default.margin if margin is None else margin,
        default.scale if scale is None else scale,
    )
    if not 0 <= chosen.margin <= 1.5707:
        raise ValueError(f'margin: expected a number from 0 to pi / 2. Received: {margin!r}')
    if not chosen.scale > 0:
        raise ValueError(f'scale: expected a number above 0. Received: {scale!r}')
    return chosen


class CosineClassifier(keras.layers.Dense):
    """scale * cos(angle between embedding and class weight): [batch, dim] -> [batch, units].

    `observer` gets the embeddings at length 1.
    """

    def __init__(
        self, units: int, scale: float, observer: Observer | None = None, **kwargs: Any
    ) -> None:
        super().__init__(units, **dict(kwargs, use_bias=False))
        self.scale, self._observer = scale, observer or Observer()

    def call(self, inputs: Tensor) -> Tensor:
        return self.scale * tf.matmul(
            self._observer(tf.nn.l2_normalize(inputs, axis=1)),
            tf.nn.l2_normalize(self.kernel, axis=0),
        )

    def get_config(self) -> dict[str, Any]:
        return dict(super().get_config(), scale=self.scale)


def prelu(slope: float) -> keras.layers.Layer:
    """The PReLU before a softmax head; `slope` is the initial one."""
    start = keras.initializers.Constant(slope)
    return keras.layers.PReLU(alpha_initializer=start, name='prelu')


def build(layer: keras.layers.Layer, embedding_dim: int) -> None:
    """Creates the variables of a layer over embeddings [batch, embedding_dim]."""
    with tf.name_scope(layer.name + '/'):
        layer.build(tf.TensorShape([None, embedding_dim]))


class Classifier:
    """The Keras layers from embeddings to logits.

    Args:
      head: see `head`.
      embedding_dim: size of the embeddings.
      num_classes: number of logits.
      slope: initial slope of the PReLU before a softmax head; None: no PReLU. Margin heads have no
        PReLU.
      seed: of the initial weights.

    Attributes:
      weights: the variables, all trainable.
      observer: of the features, which the class weights multiply: the embeddings behind the PReLU
        or, of a margin head, at length 1.
    """

    def __init__(
        self,
        head: Head,
        embedding_dim: int,
        num_classes: int,
        slope: float | None = None,
        seed: int = 1,
    ) -> None:
        settings = {
            'kernel_initializer': tf.glorot_uniform_initializer(seed=seed * 1000),
            'name': 'logits',
        }
        self.head, self.observer = head, Observer()
        if head.margin_logits is not None:
            self._layers = [CosineClassifier(num_classes, head.scale, self.observer, **settings)]
        else:
            self._layers = [keras.layers.Dense(num_classes, **settings)]
            if slope is not None:
                self._layers.insert(0, prelu(slope))
        for layer in self._layers:
            build(layer, embedding_dim)
        self.weights = [weight for layer in self._layers for weight in layer.weights]

    def logits(self, embeddings: Tensor) -> Tensor:
        """Logits [batch, num_classes] of embeddings [batch, dim] for inference."""
        *before, product = self._layers
        for layer in before:
            embeddings = layer(embeddings)
        is_cosine = isinstance(product, CosineClassifier)  # which normalises before it multiplies
        return product(embeddings if is_cosine else self.observer(embeddings))

    def training_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits for the softmax cross-entropy in training: `logits` with the head's margin at the
        labels, int [batch].
        """
        margin_logits, margin, scale = self.head
        if margin_logits is None:
            return logits
        return margin_logits(logits / scale, labels, margin, scale)
