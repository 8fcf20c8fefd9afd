"""Values and gradients of the two terms: against loops in float64, by hand, and by type."""

import numpy as np
import pytest

from gitloss import losses
from gitloss.backend import tf
from helpers import relative_error, run_graph
from loss_reference import (
    CASES,
    TOLERANCE,
    VARIANTS,
    case,
    check,
    evaluate,
    loss_terms,
    numpy_center,
    numpy_git,
)


@pytest.mark.parametrize('name', sorted(CASES))
def test_value_and_gradient_equal_the_double_loop(name):
    x, labels, centers = CASES[name]()
    check(x, labels, centers, evaluate(x, labels, centers))


@pytest.mark.parametrize('scale', [1e4, 1e6])
def test_classes_far_apart_cost_the_same_class_pairs_nothing(scale):
    """Samples 1e-2 from their centers, which are scale * sqrt(2 * 512) = 32 scale apart: the sum is
    that of the pairs of one class.
    """
    _, labels, centers = case(batch=16, dim=512, classes=3, scale=scale)
    x = (centers[labels] + 1e-2 * np.random.RandomState(1).randn(16, 512) / np.sqrt(512)).astype(
        np.float32
    )
    check(x, labels, centers, evaluate(x, labels, centers))


@pytest.mark.parametrize('batch, dim', [(128, 512), (1024, 2)])
def test_large_batches(batch, dim):
    """Against the same formulas, one sample at a time against all centers (the double loop takes
    too long here).
    """
    x, labels, centers = case(batch=batch, dim=dim, classes=50, scale=0.1)
    for (form, _), (_, _, git, gradient) in evaluate(x, labels, centers).items():
        value, reference = 0.0, np.zeros(x.shape)
        for i in range(batch):
            difference = x[i].astype(np.float64) - centers[labels].astype(np.float64)
            if form == 'elementwise':
                difference[i] = 0.0
                terms = 1.0 / (1.0 + difference**2)
            else:
                terms = 1.0 / (1.0 + np.sum(difference**2, axis=1, keepdims=True))
                terms[i] = 0.0
            value += terms.sum()
            reference[i] = -2.0 * np.sum(difference * terms**2, axis=0)
        count = batch * batch * dim if form == 'elementwise' else batch * (batch - 1)
        assert relative_error(git, value / count) <= TOLERANCE
        assert relative_error(gradient, reference / count) <= TOLERANCE


@pytest.mark.parametrize('form, method', VARIANTS)
def test_terms_over_rows_equal_the_double_loop(form, method):
    """Each sample brings its own center; the rows of a table in another order, 3.0 added to each
    number, under other labels. No gradient reaches the rows.
    """
    x, labels, centers = case(dim=17)
    renamed, moved = 4 - labels, centers[::-1] + 3

    def build(x, renamed, rows):
        center = losses.center_term(x, rows, form)
        git = losses.git_term(x, renamed, rows, form, method=method)
        assert tf.gradients(center + git, rows) == [None]
        return [center, tf.gradients(center, x)[0], git, tf.gradients(git, x)[0]]

    results = run_graph(build, x, renamed, moved[renamed])
    check(x, renamed, moved, {(form, method): results})


def test_two_samples_in_one_dimension_by_hand():
    """x = 0 of class 0, x = 3 of class 1; centers 1 and 3.

    To the own centers: d = -1 and 0.
      elementwise: (1 + 0) / 2 = 0.5, gradient 2 d / (m dim) = d = -1, 0
      pairwise: 1/2 (1 + 0) / 2 = 0.25, gradient d / m = -0.5, 0
    To the other's center: 0 - 3 = -3, term 1/10; 3 - 1 = 2, term 1/5. d term / dx = -2 d term^2:
      6/100 and -4/25.
      pairwise: two pairs, (0.1 + 0.2) / 2 = 0.15, gradient 0.03, -0.08
      elementwise: four terms, the diagonal adds 1 + 1: (2 + 0.3) / 4 = 0.575, gradient 0.06 / 4 =
        0.015, -0.16 / 4 = -0.04
    """
    x, labels, centers = np.float32([[0], [3]]), np.int32([0, 1]), np.float32([[1], [3]])
    expected = {
        'elementwise': (0.5, [[-1], [0]], 0.575, [[0.015], [-0.04]]),
        'pairwise': (0.25, [[-0.5], [0]], 0.15, [[0.03], [-0.08]]),
    }
    for (form, _), values in evaluate(x, labels, centers).items():
        for value, wanted in zip(values, expected[form]):
            np.testing.assert_allclose(value, wanted, rtol=1e-6)


def test_same_class_pairs_stay_in_by_hand():
    """x = (0, 0) and (1, 1), both of class 2, whose center is (0, 1).

    Squared distances to the other's center, which is the own one too: 1 and 1, coordinates (0, -1)
      and (1, 0).
      pairwise: (1/2 + 1/2) / 2 = 0.5; gradient -2 d / 4 / 2: (0, 0.25), (-0.25, 0)
      elementwise: eight terms: diagonal 4, off it 1 + 1/2 + 1/2 + 1 = 3: 7/8; gradient -2 d / 4 /
        8: (0, 1/16), (-1/16, 0)
    """
    x, labels, centers = (
        np.float32([[0, 0], [1, 1]]),
        np.int32([2, 2]),
        np.float32([[9, 9], [8, 8], [0, 1]]),
    )
    for (form, _), (_, _, git, gradient) in evaluate(x, labels, centers).items():
        if form == 'pairwise':
            assert git == 0.5
            np.testing.assert_array_equal(gradient, [[0, 0.25], [-0.25, 0]])
        else:
            assert git == 7 / 8
            np.testing.assert_array_equal(gradient, [[0, 1 / 16], [-1 / 16, 0]])


def test_batch_of_one_has_no_pair():
    """Pairwise: no pair, 0. Elementwise: only the diagonal, 1. No gradient in either."""
    x, labels, centers = case(batch=1, dim=3)
    for (form, _), (_, _, git, gradient) in evaluate(x, labels, centers).items():
        assert git == (1.0 if form == 'elementwise' else 0.0)
        assert not gradient.any()


def test_the_diagonal_of_the_elementwise_form_is_a_constant():
    """Samples infinitely far from the centers of all others leave 1/m, the floor of the published
    git loss: 1/128 at batch 128.
    """
    x = np.full([128, 2], 1e9, np.float32)
    git = run_graph(
        lambda *inputs: losses.git_loss(*inputs),
        x,
        np.zeros(128, np.int32),
        np.zeros([1, 2], np.float32),
    )
    assert git == pytest.approx(1 / 128, rel=1e-6)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
@pytest.mark.parametrize('dim', [2, 17])
def test_half_precision_inputs_are_computed_in_float32(dtype, dim):
    """Values are as accurate as for float32, given the rounded inputs; gradients are rounded to the
    type of the input. Half a unit in the last place is at most 2^-11 (float16) or 2^-8 (bfloat16, 8
    significant bits) of an entry; the mean over the batch of 24 makes float16 gradients small, so
    its subnormal spacing 2^-24 counts as well.
    """
    x, labels, centers = case(dim=dim)
    low = tf.as_dtype(dtype)

    def build(x, labels, centers):
        rounded = [tf.cast(x, low), tf.cast(centers, low)]
        terms = [
            loss_terms(rounded[0], labels, rounded[1], form, method) for form, method in VARIANTS
        ]
        assert all(
            tensor.dtype == (low if i % 2 else tf.float32)
            for four in terms
            for i, tensor in enumerate(four)
        )
        return [tf.cast(tensor, tf.float32) for tensor in rounded], [
            [tf.cast(t, tf.float32) for t in four] for four in terms
        ]

    (x, centers), values = run_graph(build, x, labels, centers)
    for (form, _), (center, center_gradient, git, git_gradient) in zip(VARIANTS, values):
        for value, gradient, reference in (
            (center, center_gradient, numpy_center(x, labels, centers, form)),
            (git, git_gradient, numpy_git(x, labels, centers, form)),
        ):
            assert relative_error(value, reference[0]) <= TOLERANCE
            np.testing.assert_allclose(
                gradient,
                reference[1],
                rtol=1.01 * (2.0**-11 if dtype == 'float16' else 2.0**-8),
                atol=2.0**-24 if dtype == 'float16' else 1e-7,
            )


@pytest.mark.parametrize('dim', [2, 17])
def test_float64_stays_float64(dim):
    x, labels, centers = (
        array.astype(np.float64) if array.dtype == np.float32 else array
        for array in case(dim=dim, offset=10.0)
    )
    results = evaluate(x, labels, centers)
    assert all(value.dtype == np.float64 for values in results.values() for value in values)
    check(x, labels, centers, results, tolerance=1e-13)


def test_label_types_and_center_variables():
    """int32 and int64 labels, a tensor or a variable as centers: equal to the bit."""
    x, labels, centers = case(dim=3)

    def build(x, labels, centers):
        table = tf.get_variable('table', initializer=np.asarray(case(dim=3)[2]), use_resource=True)
        return [
            [
                loss_terms(x, tf.cast(labels, dtype), source, 'pairwise', None)
                for dtype in (tf.int32, tf.int64)
            ]
            for source in (centers, table)
        ]

    (reference, *others), (third, fourth) = run_graph(build, x, labels, centers)
    for other in others + [third, fourth]:
        for one, two in zip(reference, other):
            np.testing.assert_array_equal(one, two)
