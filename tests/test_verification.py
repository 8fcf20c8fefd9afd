"""Figures of scored pairs against scikit-learn, loops over all thresholds and hand calculations."""

import fractions
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitloss.metrics.verification import (
    Roc,
    fold_accuracy,
    pair_scores,
    stratified_folds,
    unit_rows,
)

metrics = pytest.importorskip('sklearn.metrics')

# Scores from a few values are tied, those of floats are not.
SCORES = st.one_of(
    st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40),
    st.lists(st.floats(-1, 1), min_size=1, max_size=40),
)


def pairs_of(draw_scores, bits):
    scores = np.array(draw_scores)
    return scores, np.array([bits >> i & 1 for i in range(len(scores))], bool)


def points(scores, genuine):
    """{threshold: (false accepts, true accepts)} by counting, thresholds above all scores too."""
    thresholds = sorted({*scores, np.inf}, reverse=True)
    return {
        t: (int(np.sum((scores >= t) & ~genuine)), int(np.sum((scores >= t) & genuine)))
        for t in thresholds
    }


@given(SCORES, st.integers(0, 2**40 - 1))
def test_the_curve_counts_the_accepted_pairs(draw, bits):
    scores, genuine = pairs_of(draw, bits)
    curve, counted = Roc(scores, genuine), points(scores, genuine)
    assert curve.thresholds[0] > scores.max()
    assert curve.thresholds[1:].tolist() == sorted(set(scores), reverse=True)
    found = list(zip(curve.false_accepts.astype(int), curve.true_accepts.astype(int)))
    assert found == list(counted.values())


@given(SCORES, st.integers(0, 2**40 - 1))
def test_area_and_rates_are_those_of_scikit_learn(draw, bits):
    scores, genuine = pairs_of(draw, bits)
    curve = Roc(scores, genuine)
    if genuine.all() or not genuine.any():
        assert curve.auc() is None and curve.eer() is None and curve.at_far(0.5) is None
        return
    assert abs(curve.auc() - metrics.roc_auc_score(genuine, scores)) < 1e-12
    far, tar, _ = metrics.roc_curve(genuine, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.far, far, atol=1e-12)
    np.testing.assert_allclose(curve.tar, tar, atol=1e-12)


@given(SCORES, st.integers(0, 2**40 - 1))
def test_the_equal_error_rate_is_on_the_line_between_two_points(draw, bits):
    """Exact fractions: the first segment on which FAR - (1 - TAR) reaches zero."""
    scores, genuine = pairs_of(draw, bits)
    if genuine.all() or not genuine.any():
        return
    impostors, genuines = int((~genuine).sum()), int(genuine.sum())
    curve = [
        (fractions.Fraction(false, impostors), fractions.Fraction(true, genuines))
        for false, true in points(scores, genuine).values()
    ]
    for (far, tar), (next_far, next_tar) in zip(curve, curve[1:]):
        before, after = far - (1 - tar), next_far - (1 - next_tar)
        if after >= 0:
            expected = far + (next_far - far) * -before / (after - before)
            break
    assert abs(Roc(scores, genuine).eer() - float(expected)) < 1e-12


@given(SCORES, st.integers(0, 2**40 - 1), st.sampled_from([1.0, 0.5, 0.1, 0.05, 1e-3]))
def test_tar_at_far_takes_the_largest_far_that_does_not_exceed_the_target(draw, bits, target):
    """Nearest would give 2e-3 for 1e-3. Below 1 / impostors it is not defined."""
    scores, genuine = pairs_of(draw, bits)
    impostors, genuines = int((~genuine).sum()), int(genuine.sum())
    found = Roc(scores, genuine).at_far(target)
    if not impostors or not genuines or impostors * target < 1:
        assert found is None
        return
    allowed = [one for one in points(scores, genuine).values() if one[0] / impostors <= target]
    false, true = max(allowed)
    assert (found.far, found.tar) == (false / impostors, true / genuines)
    assert np.mean(scores[~genuine] >= found.threshold) == found.far


def test_one_thousandth_of_a_thousand_impostors_is_one():
    """1 of 1000 impostors has the score 1: at FAR 1e-3 it may be accepted, and the threshold is
    the next lower genuine score, 0.5, above the other impostors at 0.
    """
    scores = np.r_[1.0, np.zeros(999), 0.5]
    genuine = np.r_[np.zeros(1000, bool), True]
    assert Roc(scores, genuine).at_far(1e-3) == (0.5, 1e-3, 1.0)
    assert Roc(scores, genuine).at_far(0.99e-3) is None


@given(SCORES, st.integers(0, 2**40 - 1))
def test_no_threshold_is_more_accurate(draw, bits):
    """Against all thresholds: every score, and above all. Of equal ones, the highest."""
    scores, genuine = pairs_of(draw, bits)
    best = Roc(scores, genuine).most_accurate().threshold
    right = {t: int(np.sum((scores >= t) == genuine)) for t in points(scores, genuine)}
    assert int(np.sum((scores >= best) == genuine)) == max(right.values())
    first = next(t for t, count in right.items() if count == max(right.values()))
    assert np.sum(scores >= best) == np.sum(scores >= first)


def test_the_threshold_is_halfway_between_neighbours():
    """Genuine 0.9 and 0.7, impostors 0.3 and 0.1: all right between 0.3 and 0.7, so 0.5."""
    scores, genuine = np.array([0.9, 0.1, 0.7, 0.3]), np.array([True, False, True, False])
    assert Roc(scores, genuine).most_accurate() == (0.5, 0.0, 1.0)
    close = np.array([np.nextafter(0.5, 1), 0.5])  # no number is between them
    assert Roc(close, np.array([True, False])).most_accurate().threshold == close[0]


def test_folds_are_judged_with_the_threshold_of_the_others():
    """Two folds of a genuine and an impostor pair: (0.8, 0.6) and (0.5, 0.1). The threshold for the
    first is (0.5 + 0.1) / 2 = 0.3, which accepts its impostor: 0.5. That for the second is 0.7,
    which rejects its genuine pair: 0.5. One threshold on all, 0.3 or 0.7, would have 0.75.
    """
    found = fold_accuracy(
        np.array([0.8, 0.6, 0.5, 0.1]), np.array([True, False, True, False]), np.array([3, 3, 7, 7])
    )
    assert [(f['fold'], f['accuracy']) for f in found.folds] == [(3, 0.5), (7, 0.5)]
    np.testing.assert_allclose([f['threshold'] for f in found.folds], [0.3, 0.7])
    assert (found.mean, found.std, found.error) == (0.5, 0.0, 0.0)


def test_the_standard_error_is_that_of_the_mean_of_the_folds():
    """The first fold is judged above 0.9, where all are rejected, the second at 0.5, where both are
    wrong: accuracies 1/2 and 0, mean 1/4, standard deviation sqrt(1/8), its error 1/4.
    """
    found = fold_accuracy(
        np.array([0.9, 0.1, 0.1, 0.9]), np.array([True, False, True, False]), np.array([0, 0, 1, 1])
    )
    assert [each['accuracy'] for each in found.folds] == [0.5, 0.0]
    np.testing.assert_allclose(found[:3], (0.25, math.sqrt(1 / 8), 0.25))


@given(st.integers(2, 12), st.lists(st.booleans(), min_size=12, max_size=60), st.integers(0, 9))
def test_stratified_folds_have_both_kinds_where_there_are_enough(count, kinds, seed):
    """A list with all genuine pairs first, cut in two, would leave half of it without impostors."""
    genuine = np.array(sorted(kinds, reverse=True))
    folds = stratified_folds(genuine, count, seed)
    sizes = [np.bincount(folds[chosen], minlength=count) for chosen in (genuine, folds >= 0)]
    assert all(size.max() - size.min() <= 1 for size in sizes)
    assert (folds == stratified_folds(genuine, count, seed)).all()


@pytest.mark.parametrize(
    'scores, genuine, line',
    [
        ([0.1, math.nan], [True, False], 'scores: expected finite numbers. Received: nan at 1'),
        ([math.inf, 0.0], [True, False], 'scores: expected finite numbers'),
        ([], [], 'scores and genuine: expected'),
        ([0.1], np.array([1]), 'scores and genuine: expected'),
        ([0.1, 0.2], [True], 'scores and genuine: expected'),
    ],
)
def test_what_has_no_curve_is_one_line(scores, genuine, line):
    with pytest.raises(ValueError, match='^' + line):
        Roc(np.array(scores), genuine if len(scores) == 1 else np.array(genuine, bool))


def test_one_fold_or_fewer_pairs_than_folds_are_one_line():
    with pytest.raises(ValueError, match='^folds: expected 2 to the 3 of the pairs. Received: 10'):
        stratified_folds(np.array([True, False, True]), 10)
    with pytest.raises(ValueError, match='^folds: expected 2 or more'):
        fold_accuracy(np.array([0.5]), np.array([True]), np.array([0]))


def test_equal_scores_are_a_coin_toss():
    curve = Roc(np.full(8, 0.3), np.arange(8) < 4)
    assert curve.auc() == 0.5 and curve.eer() == 0.5
    assert curve.at_far(0.5) == (np.nextafter(0.3, 1), 0.0, 0.0)


def test_identical_embeddings_have_a_cosine_of_one_whose_angle_exists():
    """20,000 rows of float32 with themselves: without clipping a third has no arccos."""
    rows = np.random.RandomState(0).randn(20000, 16).astype(np.float32)
    assert not np.isnan(np.arccos(pair_scores(rows, rows))).any()


def test_cosine_and_euclidean_scores():
    """(3, 4) and (4, 3): 24 / 25, and a distance of sqrt(2)."""
    first, second = np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]])
    np.testing.assert_allclose(pair_scores(first, second), [0.96])
    np.testing.assert_allclose(pair_scores(first, second, 'euclidean'), [-math.sqrt(2)])


@pytest.mark.parametrize('similarity', ['cosine', 'euclidean'])
def test_unit_embeddings_are_in_one_order_by_both(similarity):
    rows = unit_rows(np.random.RandomState(1).randn(400, 8))
    scores = pair_scores(rows[:200], rows[200:], similarity)
    cosines = np.einsum('nd,nd->n', rows[:200], rows[200:])
    assert (np.argsort(scores) == np.argsort(cosines)).all()


@pytest.mark.parametrize('bad', [math.nan, math.inf, 0.0])
def test_a_row_without_direction_is_one_line(bad):
    rows = np.ones((5, 3))
    rows[2] = bad
    with pytest.raises(ValueError, match='^embeddings: expected finite numbers.*row 2$'):
        unit_rows(rows)
