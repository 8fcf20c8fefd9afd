"""Classifiers over embeddings: plain softmax, and the margin heads ArcFace and CosFace on cosines.

At inference a margin head is a cosine classifier; its margin exists only in the training loss. So a
head is two things: what the model ends with (`classifier`), and how the training loss reads its
logits (`training_logits`).
"""

from __future__ import annotations

import collections

from gitloss.backend import keras, tf

Margin = collections.namedtuple('Margin', 'name margin scale')
# The defaults of the papers. Softmax has neither.
HEADS = {
    'softmax': Margin('softmax', 0.0, 1.0),
    'arcface': Margin('arcface', 0.5, 64.0),
    'cosface': Margin('cosface', 0.35, 64.0),
}
_SMALLEST_SINE = (
    1e-6  # keeps the gradient of the square root finite where a sample lies on its class weight
)


class CosineClassifier(keras.layers.Layer):
    """scale * cos(angle between embedding and class weight): [batch, dim] -> [batch,
    num_classes].
    """

    def __init__(self, num_classes, scale, kernel_initializer='glorot_uniform', **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.scale = num_classes, scale
        self._initializer = kernel_initializer

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name='kernel',
            shape=(int(input_shape[-1]), self.num_classes),
            initializer=self._initializer,
        )
        super().build(input_shape)

    def call(self, inputs):
        return self.scale * tf.matmul(
            tf.nn.l2_normalize(inputs, axis=1), tf.nn.l2_normalize(self.kernel, axis=0)
        )

    def get_config(self):
        config = super().get_config()
        config.update(num_classes=self.num_classes, scale=self.scale)
        return config


def head(name, margin=None, scale=None):
    """The Margin settings of a head by name; None takes the paper's value.

    Raises:
      ValueError: unknown name, margin below 0 (or above pi / 2 for ArcFace), scale not above 0.
    """
    if name not in HEADS:
        raise ValueError(
            'head: expected one of {}. Received: {!r}'.format(', '.join(sorted(HEADS)), name)
        )
    default = HEADS[name]
    chosen = Margin(
        name,
        default.margin if margin is None else margin,
        default.scale if scale is None else scale,
    )
    if not 0 <= chosen.margin <= 1.5707:
        raise ValueError(f'margin: expected a number from 0 to pi / 2. Received: {margin!r}')
    if not chosen.scale > 0:
        raise ValueError(f'scale: expected a number above 0. Received: {scale!r}')
    return chosen


def arcface_logits(cosines, labels, margin=0.5, scale=64.0):
    """scale * cos(theta + margin) at the label, scale * cos(theta) elsewhere (Deng et al., CVPR
    2019, eq. 3).

    Where theta + margin would pass pi the target is continued by cos(theta) - margin sin(margin),
    which keeps it falling with theta, as the authors' code does.

    Args:
      cosines: float [batch, classes] in [-1, 1].
      labels: int [batch].
      margin: radians.
      scale: factor of all logits.

    Returns:
      Logits [batch, classes] for softmax cross-entropy.
    """
    cosine_of_margin, sine_of_margin = (
        tf.cos(tf.constant(margin, cosines.dtype)),
        tf.sin(tf.constant(margin, cosines.dtype)),
    )
    sines = tf.sqrt(tf.maximum(1.0 - tf.square(cosines), _SMALLEST_SINE**2))
    moved = cosines * cosine_of_margin - sines * sine_of_margin
    target = tf.where(cosines > -cosine_of_margin, moved, cosines - margin * sine_of_margin)
    return scale * tf.where(_is_label(labels, cosines), target, cosines)


def cosface_logits(cosines, labels, margin=0.35, scale=64.0):
    """scale * (cos(theta) - margin) at the label, scale * cos(theta) elsewhere (Wang et al., CVPR
    2018, eq. 4). Arguments as above.
    """
    return scale * tf.where(_is_label(labels, cosines), cosines - margin, cosines)


def _is_label(labels, cosines):
    return tf.cast(tf.one_hot(labels, cosines.shape.as_list()[1]), tf.bool)


def training_logits(settings, logits, labels):
    """What the training's softmax cross-entropy reads: the model's logits, with the margin of
    `settings` put in.
    """
    if settings.name == 'softmax':
        return logits
    margin_logits = {'arcface': arcface_logits, 'cosface': cosface_logits}[settings.name]
    return margin_logits(logits / settings.scale, labels, settings.margin, settings.scale)
