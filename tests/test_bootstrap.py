"""The bootstrap over identities against drawing people and counting their pairs."""

import numpy as np
import pytest

from gitloss.metrics.bootstrap import identity_weights, intervals
from gitloss.metrics.verification import Roc
from gitloss.metrics.verifying import markdown, verify


def people(count, seed=0, images=2):
    """identities [n, 2] of all pairs of the images of `count` people, scores, genuine."""
    owner = np.repeat(np.arange(count), images)
    first, second = np.triu_indices(len(owner), 1)
    identities = np.stack([owner[first], owner[second]], axis=1)
    genuine = identities[:, 0] == identities[:, 1]
    random = np.random.RandomState(seed)
    return identities, random.randn(len(first)) + 1.5 * genuine, genuine


def test_weights_are_those_of_the_drawn_people():
    """The first sample, repeated by hand: each drawing brings its pairs again."""
    identities, _, genuine = people(5)
    drawn = np.random.RandomState(3).randint(0, 5, 5)
    expected = [
        sum(drawn == a) if a == b else sum(drawn == a) * sum(drawn == b) for a, b in identities
    ]
    weights = next(identity_weights(identities, 1, seed=3))
    assert weights.tolist() == expected
    assert weights[genuine].sum() == 5  # one genuine pair each


def test_a_weighted_curve_is_that_of_repeated_pairs():
    identities, scores, genuine = people(6)
    weights = next(identity_weights(identities, 1))
    times = weights.astype(int)
    repeated = Roc(np.repeat(scores, times), np.repeat(genuine, times))
    weighted = Roc(scores, genuine).weighted(weights)
    assert abs(weighted.auc() - repeated.auc()) < 1e-12
    assert abs(weighted.eer() - repeated.eer()) < 1e-12
    assert weighted.at_far(0.1)[1:] == repeated.at_far(0.1)[1:]


def test_intervals_are_wider_than_those_of_pairs():
    """Scores that depend on the people: the 15 genuine pairs of one person are not independent. A
    bootstrap over pairs takes them for that.
    """
    identities, scores, genuine = people(20, images=6)
    scores = scores * 0.1 + np.random.RandomState(5).randn(20)[identities].sum(axis=1) * 0.3
    roc = Roc(scores, genuine)
    low, high = intervals(roc, identities, {'auc': Roc.auc}, 300)['auc']
    random = np.random.RandomState(0)
    pairs = [
        roc.weighted(np.bincount(random.randint(0, len(scores), len(scores)), None, len(scores)))
        for _ in range(300)
    ]
    narrow = np.percentile([curve.auc() for curve in pairs], [2.5, 97.5])
    assert low < roc.auc() < high
    assert high - low > 1.2 * (narrow[1] - narrow[0])


def test_what_is_mostly_undefined_has_no_interval():
    """With two people, most samples lack one of both, and so impostors."""
    identities, scores, genuine = people(2)
    found = intervals(Roc(scores, genuine), identities, {'eer': Roc.eer}, 50)
    assert found == {'eer': None}


def test_the_report_has_all_figures():
    identities, scores, genuine = people(40)
    folds = np.arange(len(scores)) % 10
    result = verify(scores, genuine, folds, identities, far=0.01, samples=50)
    roc = Roc(scores, genuine)
    assert result['pairs'] == len(scores) == result['genuine'] + result['impostor']
    assert (result['auc'], result['eer']) == (roc.auc(), roc.eer())
    assert result['tar_at_far']['0.01']['tar'] == roc.at_far(0.01).tar
    assert result['tar_at_far']['1e-06'] is None
    assert result['calibration'] == dict(roc.at_far(0.01)._asdict(), target_far=0.01)
    low, high = result['intervals']['threshold']
    assert low <= result['calibration']['threshold'] <= high
    table = markdown(result)
    assert '| TAR@FAR=1e-06 | undefined |  | needs 1000000 impostor pairs |' in table
    assert f'| EER | {roc.eer():.4f} | ' in table


@pytest.mark.parametrize('kinds', [[True] * 3, [False] * 3])
def test_one_kind_of_pairs_has_an_accuracy_and_no_curve(kinds):
    """All genuine: every threshold accepts all, so all are right."""
    result = verify(np.array([0.1, 0.2, 0.3]), np.array(kinds), np.array([0, 1, 1]))
    assert result['auc'] is result['eer'] is result['calibration'] is None
    assert set(result['tar_at_far'].values()) == {None}
    assert 'undefined' in markdown(result)


def test_one_pair_has_counts_only():
    result = verify(np.array([0.1]), np.array([True]))
    assert result['accuracy'] is None and result['pairs'] == 1
    assert '| accuracy | undefined |' in markdown(result)
