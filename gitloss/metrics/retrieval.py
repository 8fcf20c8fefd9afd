"""Retrieval and identification: which images of a gallery are nearest to a query?"""

from __future__ import annotations

from typing import Any, Iterable, NamedTuple, Sequence

import numpy as np

from gitloss.errors import check
from gitloss.metrics.neighbors import Gallery
from gitloss.metrics.verification import Roc

KS = (1, 5, 10)
FPIRS = (1e-1, 1e-2, 1e-3)


class Retrieval(NamedTuple):
    """queries: number of queries. recall_at: {k: fraction of the queries with one of their class
    among the k nearest}; with a gallery of other images, the rank-k rate of identification.
    precision_at_1: recall_at[1]. r_precision, map_at_r: means over the queries of the precision
    among the R nearest, and of its average over the places of right ones among them; R is the
    number of images of the query's class in the gallery. (Musgrave et al. 2020.)
    """

    queries: int
    recall_at: dict[int, float]
    precision_at_1: float
    r_precision: float
    map_at_r: float


def _of_class(labels: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """Number of images of each query's class in the gallery: int64 [q]."""
    classes, counts = np.unique(gallery_labels, return_counts=True)
    places = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    return np.where(classes[places] == labels, counts[places], 0)


def retrieval(
    embeddings: np.ndarray,
    labels: np.ndarray,
    gallery: np.ndarray | None = None,
    gallery_labels: np.ndarray | None = None,
    ks: Sequence[int] = KS,
    similarity: str = 'cosine',
    block: int | None = None,
    use_faiss: bool | None = None,
) -> Retrieval:
    """The figures of queries against a gallery. Equal scores count in the order of the gallery.

    Args:
      embeddings, labels: float [n, dim] and int [n], the queries.
      gallery, gallery_labels: float [k, dim] and int [k]; None: the queries, each without itself.
      ks: of `recall_at`; one beyond the gallery is the whole gallery.
      similarity, use_faiss, block: see `Gallery`. Memory is O((block + dim) x gallery).

    Raises:
      ValueError: the shapes differ, an embedding is refused, or no query has an image of its class
        in the gallery (an image that is the only one of its class is no query).
    """
    is_self = gallery is None
    rows = embeddings if gallery is None else gallery
    classes = labels if gallery_labels is None else gallery_labels
    labels, classes = _checked(embeddings, labels), _checked(rows, classes)
    relevant = _of_class(labels, classes) - is_self
    chosen = np.flatnonzero(relevant > 0)
    expected = 'one with another image of its class in the gallery'
    check(len(chosen), 'queries', expected, f'{len(labels)} queries without')
    relevant, index = relevant[chosen], Gallery(rows, similarity, use_faiss)
    deepest = min(len(index) - is_self, max(int(relevant.max()), *ks))
    queries, own = np.asarray(embeddings)[chosen], chosen if is_self else None
    found = index.search(queries, deepest, own, block)
    same = (classes[nearest] for nearest, _ in found)
    first, right, average = _places(same, labels[chosen], relevant, deepest)
    recall = {int(k): float(np.mean(first < min(k, deepest))) for k in ks}
    rates = (float(np.mean(each)) for each in (first == 0, right / relevant, average / relevant))
    return Retrieval(len(chosen), recall, *rates)


def _checked(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    check(
        np.ndim(embeddings) == 2 and labels.shape == np.shape(embeddings)[:1],
        'embeddings and labels',
        '[n, dim] and [n]',
        f'{list(np.shape(embeddings))} and {list(labels.shape)}',
    )
    return labels


def _places(
    found: Iterable[np.ndarray], labels: np.ndarray, relevant: np.ndarray, deepest: int
) -> list[np.ndarray]:
    """Of each query: the place of the first image of its class among the nearest, `deepest` without
    one; the number of right ones among the `relevant` nearest; the sum of the precisions there.

    Args:
      found: the labels of the nearest images, [b, deepest], of blocks of queries.
    """
    places, done, parts = np.arange(1, deepest + 1), 0, []
    for classes in found:
        part = slice(done, done + len(classes))
        same = classes == labels[part, None]
        among = same & (places <= relevant[part, None])
        precisions = among * np.cumsum(among, axis=1) / places
        first = np.where(same.any(axis=1), same.argmax(axis=1), deepest)
        parts.append((first, among.sum(axis=1), precisions.sum(axis=1)))
        done += len(classes)
    return [np.concatenate(each) for each in zip(*parts)]


def open_set(
    embeddings: np.ndarray,
    labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    fpirs: Sequence[float] = FPIRS,
    similarity: str = 'cosine',
) -> dict[str, Any]:
    """Open-set identification: probes may be of people who are not in the gallery.

    A probe is identified as the person of its nearest gallery image if its score is at least the
    threshold. FPIR is the fraction of the probes of unknown people that are identified; TPIR that
    of the probes of known people that are identified rightly.

    Args:
      embeddings, labels, gallery, gallery_labels: as of `retrieval`; the probes and the gallery.
      fpirs: for each, the threshold with the largest FPIR that does not exceed it.

    Returns:
      {'known', 'unknown': numbers of probes; 'tpir_at_fpir': {FPIR: {'threshold', 'fpir', 'tpir'},
      or None with fewer than 1 / FPIR probes of unknown people, or none of known people}}.

    Raises:
      ValueError: the shapes differ, or an embedding is refused.
    """
    labels, classes = _checked(embeddings, labels), _checked(gallery, gallery_labels)
    rows, scores = (
        np.concatenate(parts)[:, 0]
        for parts in zip(*Gallery(gallery, similarity).search(embeddings, 1))
    )
    known = _of_class(labels, classes) > 0
    is_right = known & (classes[rows] == labels)
    counted = ~known | is_right  # a known probe with a wrong nearest image is never right
    curve = Roc(scores[counted], is_right[counted]) if known.any() and counted.any() else None
    share = is_right.sum() / max(known.sum(), 1)
    return {
        'known': int(known.sum()),
        'unknown': int((~known).sum()),
        'tpir_at_fpir': {f'{each:g}': _open_point(curve, each, share) for each in fpirs},
    }


def _open_point(curve: Roc | None, target: float, share: float) -> dict[str, float] | None:
    if curve is None or not curve.impostors or target < 1.0 / curve.impostors:
        return None
    if not curve.genuines:
        return {'threshold': float(curve.thresholds[0]), 'fpir': 0.0, 'tpir': 0.0}
    point = curve.at_far(target)
    return point and {'threshold': point.threshold, 'fpir': point.far, 'tpir': point.tar * share}
