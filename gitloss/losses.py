"""Git loss, center loss and the rule that moves the centers.

With m samples x_i of class y_i and one center c_k per class (arXiv 1807.08512, L = L_S + lambda_c
L_C + lambda_g L_G):

form "pairwise", the norms of the paper, as means so that the lambdas do not depend on the batch
size (the paper's L_C divided by m, its L_G by the number of pairs):
    center = 1/2 mean_i ||x_i - c_{y_i}||^2
    git    = mean over the m (m - 1) pairs i != j of 1 / (1 + ||x_i - c_{y_j}||^2)
form "elementwise", what the authors' code computes and what the published MNIST numbers come from:
    center = mean_{i,k} (x_ik - c_{y_i}k)^2
    git    = mean_{i,j,k} 1 / (1 + d_ijk^2), d_ijk = x_ik - c_{y_j}k and d_iik = 0
(the diagonal adds a constant 1/m)

distance "cosine" takes the same formulas over embeddings and centers scaled to length 1, where
||x - c||^2 = 2 (1 - cos(x, c)): for embeddings that are compared by their angle, as in face
verification.

Same-class pairs with i != j stay in. A gradient flows into the embeddings only: centers move by
their own rule (Wen et al., ECCV 2016). Computation is in float32 whatever float type comes in
(float64 stays float64).

`center_term` and `git_term` take each sample's own center, wherever it comes from. `center_loss`
and `git_loss` look it up in a table first; the layers own that table.
"""

from __future__ import annotations

from typing import Any

from gitloss import pairs
from gitloss.backend import Tensor, keras, tf
from gitloss.centers import (
    DISTANCES,
    CenterTable,
    check_choice,
    comparable,
    labels_of,
    look_up,
    mean_drift,
    updated_centers,
)
from gitloss.pairs import FORMS, git_floor

__all__ = [
    'DISTANCES',
    'FORMS',
    'CenterLoss',
    'CenterTable',
    'GitLoss',
    'center_loss',
    'center_term',
    'git_floor',
    'git_loss',
    'git_term',
    'mean_drift',
    'updated_centers',
]


def center_term(
    embeddings: Tensor, own_centers: Tensor, form: str = 'elementwise', distance: str = 'euclidean'
) -> Tensor:
    """Mean distance of the samples to their own center (formulas at the top of the module).

    Args:
      embeddings: float [batch, dim].
      own_centers: float [batch, dim], the center of each sample's class; receives no gradient.
      form: "elementwise" or "pairwise".
      distance: "euclidean" or "cosine".

    Returns:
      A scalar >= 0, float32 (float64 for float64 embeddings).

    Raises:
      ValueError: unknown form or distance, or shapes or dtypes that do not fit together.
    """
    check_choice('form', form, FORMS)
    embeddings, rows = comparable(embeddings, own_centers, distance)
    squared = tf.square(embeddings - rows)
    if form == 'elementwise':
        return tf.reduce_mean(squared)
    return 0.5 * tf.reduce_mean(tf.reduce_sum(squared, axis=1))


def git_term(
    embeddings: Tensor,
    labels: Tensor,
    own_centers: Tensor,
    form: str = 'elementwise',
    distance: str = 'euclidean',
    method: str | None = None,
) -> Tensor:
    """How close the samples are to the centers of the other samples (formulas at the top of the
    module).

    The gradient is written by hand and computed along with the value: what lives until the backward
    pass is [batch, dim], what lives inside is O(batch^2), never batch x batch x dim.

    Args:
      embeddings: float [batch, dim]. With a batch unknown at build time the direct method goes
        sample by sample.
      labels: int32 or int64 [batch].
      own_centers: float [batch, dim], the center of each sample's class, equal for equal labels;
        receives no gradient.
      form: "elementwise" or "pairwise".
      distance: "euclidean" or "cosine".
      method: how "pairwise" is computed: "direct" (differences, float32 only, O(batch^2 dim) work),
        "gram" (two float64 matrix products), "unrolled" (direct, for a static batch, without the
        loop, whose shapes are open: NPUs want them static) or None: direct up to 8 dimensions, gram
        above. "elementwise" knows all but gram.

    Returns:
      A scalar, float32 (float64 for float64 embeddings), in (0, 1] for a batch of two or more. A
      batch of one has no pair: 0 in the pairwise form, 1 (its diagonal) in the elementwise form.

    Raises:
      ValueError: unknown form, distance or method, or shapes or dtypes that do not fit together.
    """
    check_choice('form', form, FORMS)
    embeddings, rows = comparable(embeddings, own_centers, distance)
    labels = labels_of(embeddings, labels)
    dim = embeddings.shape.as_list()[1]
    batch = tf.cast(tf.shape(embeddings)[0], embeddings.dtype)
    terms = batch * batch * dim if form == 'elementwise' else tf.maximum(batch * (batch - 1.0), 1.0)

    @tf.custom_gradient
    def value_of(x):
        total, gradient = pairs.git_sums(x, labels, rows, form, method)
        return total / terms, lambda upstream: upstream * (-2.0 / terms) * gradient

    return value_of(embeddings)


def center_loss(
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    form: str = 'elementwise',
    distance: str = 'euclidean',
) -> Tensor:
    """`center_term` with the own centers looked up in `centers`, float [classes, dim], a tensor or
    variable, by labels in [0, classes).
    """
    embeddings, _, own_centers = look_up(embeddings, labels, centers)
    return center_term(embeddings, own_centers, form, distance)


def git_loss(
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    form: str = 'elementwise',
    distance: str = 'euclidean',
    method: str | None = None,
) -> Tensor:
    """`git_term` with the own centers looked up in `centers`, float [classes, dim], a tensor or
    variable, by labels in [0, classes).
    """
    embeddings, labels, own_centers = look_up(embeddings, labels, centers)
    return git_term(embeddings, labels, own_centers, form, distance, method)


class _CentersLayer(keras.layers.Layer):
    """A loss over (embeddings, labels) with a CenterTable: its own, or that of another layer.

    Args:
      num_classes: number of centers.
      form: "elementwise" or "pairwise".
      alpha: see CenterTable.
      distance: "euclidean" or "cosine".
      share: another such layer, called before this one; its table and that table's alpha count.

    Raises:
      ValueError: an argument out of its range, or a `share` with other classes.
    """

    def __init__(
        self,
        num_classes: int,
        form: str = 'elementwise',
        alpha: float = 0.5,
        distance: str = 'euclidean',
        share: _CentersLayer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if share is not None and share.num_classes != num_classes:
            raise ValueError(
                f'share: expected a layer with {num_classes} classes. '
                f'Received: {share.name} with {share.num_classes}'
            )
        self.form = check_choice('form', form, FORMS)
        self.num_classes, self.alpha, self.distance = num_classes, alpha, distance
        self._owns_table = share is None
        self.table = (
            share.table if share else CenterTable(num_classes, alpha, distance, name=self.name)
        )

    def build(self, input_shape: Any) -> None:
        if self._owns_table:
            self.table.build(input_shape[0])
        super().build(input_shape)

    @property
    def centers(self) -> Tensor:
        """The variable, [num_classes, dim]; None until the owner of the table has been called."""
        return self.table.centers

    @property
    def updates(self) -> Tensor:
        """Samples that have moved each center, see CenterTable; None like `centers`."""
        return self.table.updates

    def update(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """`CenterTable.update` of the layer's table."""
        return self.table.update(embeddings, labels)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            num_classes=self.num_classes, form=self.form, alpha=self.alpha, distance=self.distance
        )
        return config


class CenterLoss(_CentersLayer):
    """`center_loss` as a layer over (embeddings, labels); its centers are zero at the start."""

    def call(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        embeddings, labels = inputs
        return center_loss(embeddings, labels, self.centers, self.form, self.distance)


class GitLoss(_CentersLayer):
    """`git_loss` as a layer over (embeddings, labels); in the total loss it shares the centers of
    the CenterLoss.
    """

    def __init__(self, num_classes: int, method: str | None = None, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.method = method

    def call(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        embeddings, labels = inputs
        return git_loss(embeddings, labels, self.centers, self.form, self.distance, self.method)
