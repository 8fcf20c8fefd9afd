"""Class means and distances against scalar loops and numbers found by hand."""

import math

import numpy as np
import pytest

from gitloss import metrics


def sums_of(embeddings, labels, num_classes, size=None):
    """(means, counts) after adding the samples in batches of `size`."""
    sums = metrics.ClassSums(num_classes)
    for start in range(0, len(labels), size or len(labels)):
        sums.add(
            embeddings[start : start + (size or len(labels))],
            labels[start : start + (size or len(labels))],
        )
    return sums.means(), sums.counts


def loop_means(embeddings, labels, num_classes):
    means, counts = [], []
    for k in range(num_classes):
        members = [row for row, label in zip(embeddings.tolist(), labels) if label == k]
        counts.append(len(members))
        means.append(
            [
                sum(row[c] for row in members) / max(len(members), 1)
                for c in range(embeddings.shape[1])
            ]
        )
    return np.array(means), np.array(counts)


def distance(one, two):
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(one, two)))


def loop_intra(embeddings, labels, means):
    per_class = []
    for k in range(len(means)):
        lengths = [distance(row, means[k]) for row, label in zip(embeddings, labels) if label == k]
        if lengths:
            per_class.append(sum(lengths) / len(lengths))
    return sum(per_class) / len(per_class)


def loop_inter(means, counts):
    present = [mean for mean, count in zip(means, counts) if count]
    lengths = [
        distance(present[i], present[j])
        for i in range(len(present))
        for j in range(len(present))
        if i < j
    ]
    return sum(lengths) / len(lengths) if lengths else 0.0


def _data(classes, dim, dtype=np.float32, samples=60, seed=0):
    """The last class has no sample; nor has class 1 where there are more than two."""
    random = np.random.RandomState(seed)
    present = [k for k in range(classes - 1) if k != 1 or classes <= 2]
    return (10 + 3 * random.randn(samples, dim)).astype(dtype), np.array(present)[
        random.randint(0, len(present), samples)
    ]


@pytest.mark.parametrize(
    'classes, dim, dtype',
    [(2, 1, np.float32), (3, 2, np.float32), (6, 2, np.float64), (11, 17, np.float32)],
)
@pytest.mark.parametrize('size', [None, 7])
def test_equal_to_scalar_loops(classes, dim, dtype, size):
    embeddings, labels = _data(classes, dim, dtype)
    means, counts = sums_of(embeddings, labels, classes, size)
    expected, expected_counts = loop_means(embeddings, labels, classes)
    assert means.dtype == np.float64 and means.shape == (classes, dim)
    np.testing.assert_allclose(means, expected, rtol=1e-12)
    np.testing.assert_array_equal(counts, expected_counts)
    intra, inter = (
        metrics.intra_class_distance([(embeddings, labels)], means),
        metrics.inter_class_distance(means, counts),
    )
    assert intra == pytest.approx(loop_intra(embeddings, labels, means), rel=1e-12)
    assert inter == pytest.approx(loop_inter(means, counts), rel=1e-12)


def test_by_hand_with_a_missing_class():
    """Class 0: (0, 0), (6, 8), mean (3, 4), both 5 away. Class 1: none. Class 2: (3, -8), 0 away.
    Class 3: (15, 4) twice, 0 away.

    intra: classes weigh alike, (5 + 0 + 0) / 3. inter: means (3, 4), (3, -8), (15, 4): 12, 12 and
    12 sqrt 2; their mean is 4 (2 + sqrt 2). The mean (0, 0) that stands for the missing class does
    not count.
    """
    embeddings, labels = (
        np.float32([[0, 0], [3, -8], [6, 8], [15, 4], [15, 4]]),
        np.int32([0, 2, 0, 3, 3]),
    )
    means, counts = sums_of(embeddings, labels, 4)
    np.testing.assert_array_equal(means, [[3, 4], [0, 0], [3, -8], [15, 4]])
    np.testing.assert_array_equal(counts, [2, 0, 1, 2])
    assert metrics.intra_class_distance([(embeddings, labels)], means) == pytest.approx(
        5 / 3, rel=1e-12
    )
    assert metrics.inter_class_distance(means, counts) == pytest.approx(
        4 * (2 + math.sqrt(2)), rel=1e-12
    )


def test_many_classes_are_sampled_evenly():
    """5 classes on a line at 0, 1, 2, 3, 4, the third without samples; at most 3: the first, the
    second and the last of the four left, at 0, 1 and 4. Pairs 1, 4, 3, mean 8 / 3."""
    means, counts = np.arange(5.0)[:, None], np.array([1, 1, 0, 1, 1])
    assert metrics.inter_class_distance(means, counts, limit=3) == pytest.approx(8 / 3, rel=1e-12)


def test_one_class_has_no_distance_to_others():
    embeddings, labels = np.float32([[1, 1], [3, 1]]), np.int32([1, 1])
    means, counts = sums_of(embeddings, labels, 3)
    assert metrics.inter_class_distance(means, counts) == 0.0
    assert metrics.intra_class_distance([(embeddings, labels)], means) == 1.0


def test_means_are_summed_in_float64():
    """A mean of 70,000 equal float32 numbers is that number; a float32 running sum would be off by
    1e-3 of it or more.
    """
    embeddings = np.full([70000, 1], 0.1, np.float32)
    means, _ = sums_of(embeddings, np.zeros(70000, np.int32), 1)
    assert means[0, 0] == pytest.approx(float(np.float32(0.1)), rel=1e-10)
