"""Distances within and between classes: with a table of all classes and in the order of classes,
of all samples and estimated from some classes.
"""

import itertools
import math

import numpy as np
import pytest

from callbacks import class_distances
from callbacks.centers import CenterMeasurement
from gitloss import metrics
from gitloss.metrics import whole_classes
from handles import FakeHandle
from helpers import Points

SIZES = [1, 13, 0, 2, 7, 4, 1, 30, 0, 8, 3, 0]  # samples of the classes

NAMES = ('intra_cls_dist', 'inter_cls_dist', 'inter_over_intra')


def points(sizes=SIZES, dim=3, seed=0):
    random = np.random.RandomState(seed)
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int32)
    return Points((5 + random.randn(len(labels), dim)).astype(np.float32), labels)


class Counting(FakeHandle):
    """Counts its sweeps and the samples in each."""

    def __init__(self, num_classes, dim):
        super().__init__()
        self.num_classes, self.options = num_classes, {'embedding_dim': dim}
        self.table, self.swept = np.full((num_classes, dim), 7.0), []

    def sweep(self, split, with_losses=False, with_predictions=True):
        assert not with_predictions
        self.swept.append(len(split.labels))
        return super().sweep(split, with_losses, with_predictions)


def distance(one, two):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, two)))


def by_definition(source, unit=False):
    """({name: distance}, {class: its center}) of a Source, by loops over samples in float64."""
    rows = source.embeddings.astype(np.float64)
    of = {k: rows[source.labels == k] for k in np.unique(source.labels)}
    means = {k: own.mean(axis=0) for k, own in of.items()}
    intra = np.mean([np.mean([distance(x, means[k]) for x in own]) for k, own in of.items()])
    inter = np.mean([distance(*pair) for pair in itertools.combinations(means.values(), 2)])
    if unit:
        means = {
            k: np.mean([row / np.linalg.norm(row) for row in own], axis=0) for k, own in of.items()
        }
    return dict(zip(NAMES, (intra, inter, inter / intra))), means


@pytest.mark.parametrize('unit', [False, True])
@pytest.mark.parametrize(
    'table_bytes, kept_bytes, swept',
    [
        (288, 828, [69]),
        (288, 827, [69, 69]),
        (287, 360, [69]),
        (287, 359, [39, 30, 30]),
        (287, 155, [26, 13, 13, 30, 30]),
    ],
)
def test_both_ways_give_the_numbers_of_the_definition(
    monkeypatch, unit, table_bytes, kept_bytes, swept
):
    """12 classes x 3 x 8 bytes are a table of 288 bytes. 69 samples take 828 bytes, the largest
    class, of 30 samples, 360, the next one, of 13, 156: above kept_bytes they are swept twice.
    """
    monkeypatch.setattr(class_distances, 'TABLE_BYTES', table_bytes)
    monkeypatch.setattr(class_distances, 'KEPT_BYTES', kept_bytes)
    source, handle, logs = points(), Counting(12, 3), {}
    expected, centers = by_definition(source, unit)
    callback = CenterMeasurement(source, reset=True, distance='cosine' if unit else 'euclidean')
    callback.handle = handle
    callback.on_epoch_end(1, logs)
    assert handle.swept == swept
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert not [name for name in logs if 'error' in name]
    _, means = by_definition(source)
    for k in range(12):
        np.testing.assert_allclose(callback.means[k], means.get(k, [np.nan] * 3), rtol=1e-12)
        np.testing.assert_allclose(handle.table[k], centers.get(k, [7] * 3), rtol=1e-6)


@pytest.mark.parametrize('table_bytes, kept_bytes, swept', [(288, 1, [69]), (0, 155, [26, 13, 30])])
def test_centers_before_the_first_step_need_one_sweep(monkeypatch, table_bytes, kept_bytes, swept):
    """Large classes alone, in the order of classes, but none twice: no distances are needed."""
    monkeypatch.setattr(class_distances, 'TABLE_BYTES', table_bytes)
    monkeypatch.setattr(class_distances, 'KEPT_BYTES', kept_bytes)
    source, handle = points(), Counting(12, 3)
    # --measure_samples is for measurements: all centers are set.
    callback = CenterMeasurement(source, init='means', samples=20)
    callback.handle = handle
    callback.on_train_begin({})
    assert handle.swept == swept
    means = by_definition(source)[1]
    for k in range(12):
        np.testing.assert_allclose(handle.table[k], means.get(k, [7] * 3), rtol=1e-12)


@pytest.mark.parametrize('size', [1, 2, 3, 4, 7, 100])
def test_groups_are_whole_classes(size):
    """Whatever the batches, no class is in two groups, and no sample is lost or moved."""
    labels = np.sort(points().labels)
    rows = np.arange(69.0)[:, None]
    batches = [(rows[i : i + size], labels[i : i + size]) for i in range(0, 69, size)]
    found = list(whole_classes.groups(batches))
    np.testing.assert_array_equal(np.concatenate([group[0] for group in found]), rows)
    np.testing.assert_array_equal(np.concatenate([group[1] for group in found]), labels)
    seen = [k for _, group in found for k in np.unique(group)]
    assert len(seen) == len(set(seen)) == 9
    assert not list(whole_classes.groups([]))


def test_a_sample_is_of_whole_classes_evenly_spaced():
    """Of 8 present classes with 10 samples each 4 have 40: places 0, 2, 4 and 7. Counts 1 to 1000:
    the three of least samples that are evenly spaced have 1 + 500 + 1000, more than 10.
    """
    counts = np.array([10, 10, 0, 10, 10, 10, 0, 10, 10, 10])
    assert metrics.sampled_classes(counts, 40).tolist() == [0, 3, 5, 9]
    assert metrics.sampled_classes(counts, 49).tolist() == [0, 3, 5, 9]
    for everything in (0, 80, 81):
        assert metrics.sampled_classes(counts, everything).tolist() == [0, 1, 3, 4, 5, 7, 8, 9]
    assert metrics.sampled_classes(np.arange(1, 1001), 10).tolist() == [0, 499, 999]
    many = np.random.RandomState(0).randint(0, 9, 5000)
    chosen = metrics.sampled_classes(many, 3000)
    assert 2500 < many[chosen].sum() <= 3000 and many[chosen].all()
    assert metrics.sampled_classes(np.array([5, 0, 5]), 1).tolist() == [0, 2]


def test_errors_by_hand():
    """Points 0, 1 and 4 of a line: pairs 1, 4 and 3, mean 8 / 3. Without the first the mean is 3,
    without the second 4, without the third 1: (n - 1) / n sum (U_i - U)^2 = 2 / 3 (1 / 9 + 16 / 9 +
    25 / 9) = 28 / 9, of six points half of it. Values 1, 2 and 3 of six: s = 1, sqrt(1 / 6).
    """
    line = np.array([[0.0], [1.0], [4.0]])
    mean, error = metrics.mean_pair_distance(line, 6)
    assert (mean, error) == pytest.approx((8 / 3, math.sqrt(14 / 9)), rel=1e-12)
    assert metrics.mean_pair_distance(line, 3) == (mean, 0.0)
    assert math.isnan(metrics.mean_pair_distance(line[:2], 3)[1])
    values = np.array([1.0, 2.0, 3.0])
    assert metrics.standard_error(values, 6) == pytest.approx(math.sqrt(1 / 6), rel=1e-12)
    assert metrics.standard_error(values, 3) == 0.0
    assert math.isnan(metrics.standard_error(values[:1], 3))


@pytest.mark.parametrize('sample', [20, 100])
def test_error_bars_cover_the_value_of_the_population(sample):
    """400 draws of 20 or 100 of 200 points: the value of all 200 lies within 2 errors in about 95
    of 100 draws (a binomial standard deviation is 1.1), and the mean square of the errors is the
    variance of the draws, of which 400 have a standard deviation of 7 percent, to 20 percent.
    """
    random = np.random.RandomState(1)
    population = random.randn(200, 4) * random.uniform(0.5, 1.5, [200, 1])
    values = np.linalg.norm(population, axis=1)
    truth = np.array([metrics.mean_pair_distance(population)[0], values.mean()])
    found, errors = [], []
    for _ in range(400):
        drawn = random.choice(200, sample, replace=False)
        mean, error = metrics.mean_pair_distance(population[drawn], 200)
        found.append([mean, values[drawn].mean()])
        errors.append([error, metrics.standard_error(values[drawn], 200)])
    found, errors = np.array(found), np.array(errors)
    covered = np.mean(np.abs(found - truth) <= 2 * errors, axis=0)
    assert (covered > 0.91).all() and (covered < 0.985).all()
    np.testing.assert_allclose(np.mean(errors**2, axis=0), found.var(axis=0), rtol=0.2)


def test_a_measurement_of_some_classes_has_errors():
    """1000 classes of 2 samples, of which 400 may be swept: 200 classes. Their means come first in
    the pictures' 200. Both distances are near those of all classes, within four errors.
    """
    sizes = [2] * 1000
    source, handle, logs = points(sizes), Counting(1000, 3), {}
    source.embeddings += np.random.RandomState(1).gamma(2, 1, [1000, 3])[source.labels]
    callback = CenterMeasurement(source, samples=400)
    callback.handle = handle
    callback.on_epoch_end(1, logs)
    assert handle.swept == [400] and callback.means.shape == (200, 3)
    taken = metrics.sampled_classes(np.array(sizes), 400)
    np.testing.assert_allclose(
        callback.means, [source.embeddings[source.labels == k].mean(axis=0) for k in taken], 1e-5
    )
    exact = by_definition(source)[0]
    for name in ('intra_cls_dist', 'inter_cls_dist'):
        assert 0 < abs(logs[name] - exact[name]) < 4 * logs[name + '_error'] < exact[name]
    handle.swept, logs = [], {}
    all_of_it = CenterMeasurement(source, samples=2000)
    all_of_it.handle = handle
    all_of_it.on_epoch_end(1, logs)
    assert handle.swept == [2000] and not [name for name in logs if 'error' in name]


def test_more_class_means_than_are_paired_are_a_sample(monkeypatch):
    """Of 9 present classes 5 are paired: only the distance between classes is an estimate."""
    monkeypatch.setattr(class_distances, 'PAIRED', 5)
    result, means = class_distances.class_distances(Counting(12, 3), points(), 12)
    assert set(result) == {*NAMES, 'inter_cls_dist_error'} and len(means) == 0
    assert result['intra_cls_dist'] == pytest.approx(by_definition(points())[0][NAMES[0]])
