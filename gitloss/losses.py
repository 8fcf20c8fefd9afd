"""Git loss, center loss and the update rule of the centers.

With m samples x_i of class y_i and one center c_k per class (arXiv 1807.08512, L = L_S + lambda_c
L_C + lambda_g L_G):

form "pairwise" has the norms of the paper. They are means, so that the lambdas do not depend on the
batch size (the paper's L_C divided by m, its L_G by the number of pairs):
    center = 1/2 mean_i ||x_i - c_{y_i}||^2
    git    = mean over the m (m - 1) pairs i != j of 1 / (1 + ||x_i - c_{y_j}||^2)
form "elementwise" is what the authors' code computes and how the published MNIST numbers were made:
    center = mean_{i,k} (x_ik - c_{y_i}k)^2
    git    = mean_{i,j,k} 1 / (1 + d_ijk^2), d_ijk = x_ik - c_{y_j}k and d_iik = 0
(the diagonal adds a constant 1/m)

distance "cosine" applies the same formulas to embeddings and centers scaled to length 1, where
||x - c||^2 = 2 (1 - cos(x, c)). It is for embeddings that are compared by their angle, as in face
verification.

Same-class pairs with i != j are included. Gradients flow into the embeddings only; centers move by
their own rule (Wen et al., ECCV 2016). Computation is in float32, of float64 embeddings in float64.

`center_term` and `git_term` take the own center of each sample as an argument. `center_loss` and
`git_loss` look it up in a table; the layers own that table.
"""

from __future__ import annotations

from typing import Any

from gitloss import pairs
from gitloss.backend import Tensor, is_eager, keras, tf
from gitloss.centers import (
    DISTANCES,
    CenterTable,
    center_steps,
    comparable,
    labels_of,
    look_up,
    mean_drift,
    updated_centers,
)
from gitloss.errors import check, check_choice
from gitloss.gradients import custom_gradient
from gitloss.pairs import FORMS, git_floor

__all__ = [
    'DISTANCES',
    'FORMS',
    'CenterLoss',
    'CenterTable',
    'GitLoss',
    'center_loss',
    'center_steps',
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
      own_centers: float [batch, dim], the center of each sample's class; gets no gradient.
      form: "elementwise" or "pairwise".
      distance: "euclidean" or "cosine".

    Returns:
      A scalar >= 0, float32 (float64 for float64 embeddings).

    Raises:
      ValueError: unknown form or distance, or shapes or dtypes do not match.
    """
    check_choice('form', form, FORMS)
    embeddings, own_centers = comparable(embeddings, own_centers, distance)

    @custom_gradient  # to the last bit TensorFlow's, in one pass over [batch, dim] instead of three
    def value_of(x: Tensor) -> Any:
        difference, factor = x - own_centers, 2.0
        squared = tf.square(difference)
        if form == 'pairwise':
            squared, factor = 0.5 * tf.reduce_sum(squared, axis=1), 1.0
        terms = tf.cast(tf.size(squared), x.dtype)
        return tf.reduce_mean(squared), lambda upstream: factor * upstream / terms * difference

    return value_of(embeddings)


def git_term(
    embeddings: Tensor,
    labels: Tensor,
    own_centers: Tensor,
    form: str = 'elementwise',
    distance: str = 'euclidean',
    method: str | None = None,
    first_row: int | None = None,
) -> Tensor:
    """How close the samples are to the centers of the others (formulas at the top of the module),
    in O(batch^2) memory, of which [batch, dim] is kept for the backward pass.

    Args:
      embeddings: float [batch, dim]; of an unknown batch, direct takes one sample at a time.
      labels: int32 or int64 [batch].
      own_centers, form, distance: as for `center_term`; equal labels have equal centers.
      method: "direct": differences, O(batch^2 dim) work. "gram", for "pairwise" alone: matrix
        products. "unrolled": direct without a loop, for a static batch and devices that need
        static shapes (NPUs). None: gram for "pairwise" above 8 dimensions, else direct.
      first_row: the embeddings are of the samples first_row, first_row + 1, ... of the batch alone;
        the result is their part of the term, and the parts of a batch add up. None: of all.

    Returns:
      A scalar, float32 or float64, in (0, 1]; of one sample, which has no pair, 0 or elementwise 1.

    Raises:
      ValueError: unknown form, distance or method, or shapes or dtypes do not match.
    """
    check_choice('form', form, FORMS)
    embeddings, own_centers = comparable(embeddings, own_centers, distance, first_row is not None)
    labels, dim = labels_of(own_centers, labels), embeddings.shape.as_list()[1]
    batch = tf.cast(tf.shape(own_centers)[0], embeddings.dtype)
    terms = batch * batch * dim if form == 'elementwise' else tf.maximum(batch * (batch - 1.0), 1.0)

    @custom_gradient
    def value_of(x: Tensor) -> Any:
        total, gradient = pairs.git_sums(x, labels, own_centers, form, method, first_row)
        return total / terms, lambda upstream: upstream * (-2.0 / terms) * gradient

    return value_of(embeddings)


def center_loss(
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    form: str = 'elementwise',
    distance: str = 'euclidean',
) -> Tensor:
    """`center_term` with own centers from `centers`, a tensor or variable [classes, dim], at the
    labels, int [batch] in [0, classes).
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
    """`git_term` with own centers from `centers`, a tensor or variable [classes, dim], at the
    labels, int [batch] in [0, classes).
    """
    embeddings, labels, own_centers = look_up(embeddings, labels, centers)
    return git_term(embeddings, labels, own_centers, form, distance, method)


class _CentersLayer(CenterTable):
    """A loss over (embeddings, labels) with centers of its own or those of another layer.

    It is for graphs whose training loop runs `update`; for Keras's `fit` see gitloss.keras.

    Args:
      num_classes: number of centers.
      form: "elementwise" or "pairwise".
      alpha: see CenterTable.
      distance: "euclidean" or "cosine".
      share: another such layer, called before this one, whose centers are used.

    Raises:
      ValueError: an argument is out of range, or `share` has another number of classes.
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
        super().__init__(num_classes, alpha, distance, **kwargs)
        self.form, self._share = check_choice('form', form, FORMS), share
        if share is not None and share.num_classes != num_classes:
            raise ValueError(
                f'share: expected a layer with {num_classes} classes. '
                f'Received: {share.name} with {share.num_classes}'
            )

    def build(self, input_shape: Any) -> None:
        if self._share is None:
            super().build(input_shape[0])
        else:
            self.centers, self.updates = self._share.centers, self._share.updates

    def check_graph(self, inputs: Any, training: Any) -> None:
        """Raises ValueError where nobody runs `update`: in eager mode and in Keras's own loops."""
        received = 'eager mode' if is_eager() else ''
        symbolic = (keras.utils.get_source_inputs(each) is not each for each in inputs)
        if training is not None or any(symbolic):  # `fit` gives `training`, keras.Input sources
            received = 'a layer of a Keras model'
        check(
            not received,
            self.name,
            'a tf.Graph and a training loop that runs update()',
            f'{received}, where its centers would not move; see gitloss.keras and '
            'losses.updated_centers',
        )

    def get_config(self) -> dict[str, Any]:
        return dict(
            super().get_config(),
            num_classes=self.num_classes,
            form=self.form,
            alpha=self.alpha,
            distance=self.distance,
        )


class CenterLoss(_CentersLayer):
    """`center_loss` as a layer over (embeddings, labels); the centers are initially zero."""

    def call(self, inputs: tuple[Tensor, Tensor], training: Any = None) -> Tensor:
        self.check_graph(inputs, training)
        # Not *inputs: TensorFlow 1.15's autograph passes them wrongly.
        embeddings, labels = inputs
        return center_loss(embeddings, labels, self.centers, self.form, self.distance)


class GitLoss(_CentersLayer):
    """`git_loss` as a layer over (embeddings, labels); it may share the CenterLoss's centers."""

    def __init__(self, num_classes: int, method: str | None = None, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.method = method

    def call(self, inputs: tuple[Tensor, Tensor], training: Any = None) -> Tensor:
        self.check_graph(inputs, training)
        embeddings, labels = inputs
        return git_loss(embeddings, labels, self.centers, self.form, self.distance, self.method)
