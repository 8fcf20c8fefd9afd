"""The cosine distance: both terms and the centers on unit vectors."""

import numpy as np
import pytest

from gitloss import losses
from gitloss.backend import tf
from helpers import relative_error, run_graph
from loss_reference import TOLERANCE, case, numpy_center, numpy_git, numpy_update


def _unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize('dim', [2, 17])
@pytest.mark.parametrize('form', losses.FORMS)
def test_cosine_distance_equals_the_double_loop_on_unit_vectors(form, dim):
    """u = x / |x|, so that a gradient g with respect to u is (g - (g.u) u) / |x| with respect to
    x.
    """
    x, labels, centers = case(dim=dim, scale=3.0)

    def build(x, labels, centers):
        terms = [
            f(x, labels, centers, form, distance='cosine')
            for f in (losses.center_loss, losses.git_loss)
        ]
        assert tf.gradients(sum(terms), centers) == [None]
        return [[term, tf.gradients(term, x)[0]] for term in terms]

    unit = _unit(x.astype(np.float64))
    for (value, gradient), function in zip(
        run_graph(build, x, labels, centers), (numpy_center, numpy_git)
    ):
        expected, slope = function(unit, labels, _unit(centers.astype(np.float64)), form)
        slope = (slope - np.sum(slope * unit, axis=1, keepdims=True) * unit) / np.linalg.norm(
            x, axis=1, keepdims=True
        )
        assert relative_error(value, expected) <= TOLERANCE
        assert relative_error(gradient, slope) <= TOLERANCE


def test_cosine_distance_by_hand():
    """x = (0, 5) with its center (3, 0): at a right angle 2 (1 - cos) = 2, halved 1. Their lengths
    do not matter.
    """
    x, labels, centers = np.float32([[0, 5]]), np.int32([0]), np.float32([[3, 0]])
    value = run_graph(
        lambda *inputs: losses.center_loss(*inputs, form='pairwise', distance='cosine'),
        x,
        labels,
        centers,
    )
    assert value == pytest.approx(1.0, rel=1e-6)


def test_cosine_centers_move_towards_unit_vectors():
    x, labels, centers = case(dim=3, scale=3.0)
    moved = run_graph(
        lambda *inputs: losses.updated_centers(*inputs, distance='cosine'), centers, x, labels
    )
    np.testing.assert_allclose(
        moved, numpy_update(centers, _unit(x.astype(np.float64)), labels, 0.5), rtol=1e-5, atol=1e-6
    )
