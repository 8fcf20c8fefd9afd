"""Statistics of classes one after the other, from samples in the order of their classes.

A class needs no row in a table: it is complete when its last sample has passed. Memory is that of
the largest class and of a batch.
"""

from __future__ import annotations

from typing import Iterable, Iterator

import numpy as np

from gitloss.metrics.classes import evenly_spaced

_BLOCK = 4096  # rows whose distances are computed at once, in float64
_FEWEST = 3  # classes of a sample: with two, the error of their distance cannot be estimated


def sampled_classes(counts: np.ndarray, samples: int) -> np.ndarray:
    """Classes, evenly spaced among those present, that have at most `samples` samples together; at
    least three classes. int64, increasing.

    Args:
      counts: int [classes], the samples of each class.
      samples: 0 or a large number: all present classes.
    """
    present = np.flatnonzero(counts)
    number, total = len(present), int(counts.sum())
    chosen = present
    while 0 < samples < total and number > _FEWEST:
        number = max(_FEWEST, min(number - 1, number * samples // total))
        chosen = present[evenly_spaced(len(present), number)]
        total = int(counts[chosen].sum())
    return chosen


def groups(
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Joins and cuts batches so that no class is in two of them.

    Args:
      batches: (embeddings float [n, dim], labels int [n]), n > 0; labels never decrease.
    """
    parts: list[tuple[np.ndarray, np.ndarray]] = []  # samples of one class, which may go on
    for embeddings, labels in batches:
        start = int(np.searchsorted(labels, labels[-1]))  # of the last class
        if start or (parts and parts[-1][1][-1] != labels[-1]):
            yield _joined([*parts, (embeddings[:start], labels[:start])])
            parts = []
        parts.append((embeddings[start:], labels[start:]))
    if parts:
        yield _joined(parts)


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    embeddings, labels = zip(*parts)
    return np.concatenate(embeddings), np.concatenate(labels)


def means(embeddings: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes of a group, int [k], and their means, float64 [k, dim].

    Args:
      embeddings: float [n, dim].
      labels: int [n]; they never decrease.
    """
    first, counts = _runs(labels)
    sums = np.add.reduceat(embeddings, first, axis=0, dtype=np.float64)
    return labels[first], sums / counts[:, None]


def spreads(embeddings: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance of the samples of each class to its row of `centers`, both as `means`
    takes and returns them: float64 [k].
    """
    first, counts = _runs(labels)
    own = np.repeat(np.arange(len(first)), counts)
    distances = np.empty(len(labels))
    for start in range(0, len(labels), _BLOCK):
        block = slice(start, start + _BLOCK)
        distances[block] = np.linalg.norm(embeddings[block] - centers[own[block]], axis=1)
    return np.add.reduceat(distances, first) / counts


def _runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first sample of each class, number of its samples)."""
    first = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
    return first, np.diff(np.append(first, len(labels)))
