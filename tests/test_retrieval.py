"""Retrieval against loops over all pairs; neighbours against sorting all of them."""

import math

import numpy as np
import pytest

from gitloss.metrics import neighbors
from gitloss.metrics.neighbors import Gallery
from gitloss.metrics.retrieval import open_set, retrieval
from gitloss.metrics.verification import unit_rows


def random_points(count, dim=3, classes=4, seed=0, levels=None):
    """(points, labels); with `levels` the coordinates are so few that many points are equal."""
    random = np.random.RandomState(seed)
    points = random.randint(1, levels, (count, dim)) if levels else random.randn(count, dim)
    return points.astype(np.float64), random.randint(0, classes, count)


def sorted_rows(queries, gallery, similarity, own=None):
    """All rows of the gallery for each query by a loop: nearest first, ties by row.

    Scores are rounded to 1e-9, so that those of equal points are equal.
    """
    result = []
    for place, query in enumerate(queries):
        if similarity == 'cosine':
            scores = [float(unit_rows(g[None]).dot(unit_rows(query[None])[0])[0]) for g in gallery]
        else:
            scores = [
                -math.dist(query, g) if hasattr(math, 'dist') else -float(np.linalg.norm(query - g))
                for g in gallery
            ]
        rows = [row for row in range(len(gallery)) if own is None or row != own[place]]
        result.append(sorted(rows, key=lambda row: (-round(scores[row], 9), row)))
    return result


@pytest.mark.parametrize('similarity', ['cosine', 'euclidean'])
@pytest.mark.parametrize('levels', [None, 3])
@pytest.mark.parametrize('block', [1, 7, None])
def test_neighbours_are_those_of_a_sort(similarity, levels, block):
    points, _ = random_points(60, levels=levels)
    queries, own = points[10:30], np.arange(10, 30)
    for k in (1, 5, 59):
        found = Gallery(points, similarity).search(queries, k, own, block)
        rows = np.concatenate([rows for rows, _ in found])
        expected = sorted_rows(queries, points, similarity, own)
        assert rows.tolist() == [row[:k] for row in expected]


@pytest.mark.parametrize('similarity', ['cosine', 'euclidean'])
@pytest.mark.parametrize('levels', [None, 4])
def test_candidates_in_float32_lead_to_the_same_neighbours(monkeypatch, similarity, levels):
    """A gallery that is large for k is searched in float32 first; where it has many equal points,
    more than the spare candidates, nothing is lost either.
    """
    points, _ = random_points(3000, dim=4, levels=levels)
    queries = points[:40] + (0 if levels else 1e-9)
    found = list(Gallery(points, similarity).search(queries, 2))
    monkeypatch.setattr(neighbors, 'ROWS_PER_CANDIDATE', 10**9)
    exact = list(Gallery(points, similarity).search(queries, 2))
    for (rows, scores), (exact_rows, exact_scores) in zip(found, exact):
        assert rows.tolist() == exact_rows.tolist()
        np.testing.assert_allclose(scores, exact_scores, atol=1e-6)


@pytest.mark.skipif(neighbors.faiss is None, reason='faiss is not installed')
@pytest.mark.parametrize('similarity', ['cosine', 'euclidean'])
@pytest.mark.parametrize('levels', [None, 4])
def test_faiss_finds_the_same(similarity, levels):
    points, labels = random_points(1500, dim=16, levels=levels)
    rows, theirs = (
        np.concatenate([r for r, _ in Gallery(points, similarity, use).search(points[:64], 3)])
        for use in (False, True)
    )
    assert rows.tolist() == theirs.tolist()
    ours, theirs = (
        retrieval(points, labels, similarity=similarity, use_faiss=use) for use in (False, True)
    )
    assert ours == theirs


def test_without_faiss_a_line_says_so(monkeypatch):
    monkeypatch.setattr(neighbors, 'faiss', None)
    line = (
        '^use_faiss: expected faiss to be installed. Received: none; pip install "faiss-cpu>=1.7"$'
    )
    with pytest.raises(ValueError, match=line):
        Gallery(np.eye(2), use_faiss=True)


def slow(rows_of_query, labels, gallery_labels, ks):
    """The figures of one query after the other, from the definitions."""
    sums, queries = None, 0
    for rows, label in zip(rows_of_query, labels):
        same = [gallery_labels[row] == label for row in rows]
        relevant = sum(same)
        if not relevant:
            continue
        precision = [sum(same[: i + 1]) / (i + 1) for i in range(len(same))]
        values = [any(same[:k]) for k in ks] + [
            precision[0],
            sum(same[:relevant]) / relevant,
            sum(p for p, hit in zip(precision[:relevant], same) if hit) / relevant,
        ]
        sums = np.array(values, float) + (0 if sums is None else sums)
        queries += 1
    return queries, sums / queries


@pytest.mark.parametrize('similarity', ['cosine', 'euclidean'])
@pytest.mark.parametrize('levels', [None, 3])
@pytest.mark.parametrize('classes', [1, 4, 30])
def test_a_set_against_itself(similarity, levels, classes):
    """With 30 classes of 60 images, some have one image, which is no query."""
    points, labels = random_points(60, classes=classes, levels=levels)
    ks = (1, 2, 5, 1000)
    found = retrieval(points, labels, ks=ks, similarity=similarity, block=7)
    rows = sorted_rows(points, points, similarity, np.arange(60))
    queries, expected = slow(rows, labels, labels, ks)
    values = [*found.recall_at.values(), *found[2:]]
    assert found.queries == queries
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@pytest.mark.parametrize('similarity', ['cosine', 'euclidean'])
def test_probes_against_a_gallery(similarity):
    """Probes of the classes 0 to 5 against a gallery of the classes 0 to 3."""
    gallery, gallery_labels = random_points(50, classes=4)
    probes, labels = random_points(30, classes=6, seed=1)
    found = retrieval(probes, labels, gallery, gallery_labels, (1, 3), similarity)
    rows = sorted_rows(probes, gallery, similarity)
    queries, expected = slow(rows, labels, gallery_labels, (1, 3))
    assert found.queries == queries == np.isin(labels, gallery_labels).sum()
    np.testing.assert_allclose([*found.recall_at.values(), *found[2:]], expected, rtol=1e-12)


def test_figures_by_hand():
    """On a line at 0, 1, 3, 4.5 with the labels a, a, b, a. The query 0: a (1), b (3), a (4.5), so
    R = 2: R-precision 1/2, MAP@R (1/1) / 2 = 1/2. 1: a (0), b (3), a: the same. 4.5: b, a, a:
    R-precision 1/2, MAP@R (1/2) / 2 = 1/4. b is alone and no query.
    """
    points, labels = np.array([[0.0], [1.0], [3.0], [4.5]]), np.array([0, 0, 1, 0])
    found = retrieval(points, labels, ks=(1, 2), similarity='euclidean')
    assert found.queries == 3 and found.recall_at == {1: 2 / 3, 2: 1.0}
    np.testing.assert_allclose(found[2:], (2 / 3, 1 / 2, (1 / 2 + 1 / 2 + 1 / 4) / 3))


def slow_open_set(probes, labels, gallery, gallery_labels, target):
    """The largest FPIR that does not exceed the target, over all thresholds."""
    cosines = unit_rows(probes).dot(unit_rows(gallery).T)
    best, named = cosines.max(axis=1), gallery_labels[cosines.argmax(axis=1)]
    known = np.isin(labels, gallery_labels)
    options = []
    for threshold in [*best, np.inf]:
        fpir = np.mean(best[~known] >= threshold)
        tpir = np.mean((best[known] >= threshold) & (named[known] == labels[known]))
        if fpir <= target:
            options.append((fpir, tpir))
    return max(options)


@pytest.mark.parametrize('target', [0.5, 0.1, 0.05])
def test_open_set_identification(target):
    gallery, gallery_labels = random_points(50, classes=4)
    probes, labels = random_points(80, classes=6, seed=1)
    found = open_set(probes, labels, gallery, gallery_labels, (target, 1e-3))
    assert found['known'] + found['unknown'] == 80 and found['unknown'] < 1000
    assert found['tpir_at_fpir']['0.001'] is None
    point = found['tpir_at_fpir'][f'{target:g}']
    expected = slow_open_set(probes, labels, gallery, gallery_labels, target)
    np.testing.assert_allclose((point['fpir'], point['tpir']), expected, rtol=1e-12)


@pytest.mark.parametrize(
    'points, labels, line',
    [
        (np.ones((3, 2)), [0, 1, 2], 'queries: expected one with another image of its class'),
        (np.ones((3, 2)), [0, 1], 'embeddings and labels: expected'),
        (np.full((3, 2), np.nan), [0, 0, 1], 'gallery: expected finite embeddings'),
        (np.zeros((3, 2)), [0, 0, 1], 'embeddings: expected finite numbers, not all of them 0'),
    ],
)
def test_mistakes_are_one_line(points, labels, line):
    with pytest.raises(ValueError, match='^' + line):
        retrieval(points, np.array(labels))


def test_a_collapsed_network_has_all_neighbours_in_the_order_of_the_gallery():
    """All embeddings are equal: every query finds the first other rows."""
    points, labels = np.ones((200, 3)), np.arange(200) % 2
    rows, scores = next(Gallery(points).search(points, 2, np.arange(200)))
    assert rows[0].tolist() == [1, 2] and rows[1].tolist() == [0, 2] and (rows[2:] == [0, 1]).all()
    np.testing.assert_allclose(scores, 1.0)
    assert retrieval(points, labels).precision_at_1 == pytest.approx(0.5, abs=0.01)
