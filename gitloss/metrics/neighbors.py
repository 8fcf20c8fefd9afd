"""Nearest neighbours in a gallery: exact, in blocks of queries, with faiss where it is installed.

Few neighbours in a large gallery are looked for in float32, by faiss if it is installed: more
candidates than are asked for, whose scores are then computed in float64. A query whose neighbours
the rounding might have hidden is compared with the whole gallery in float64, as all are in a small
gallery. Scores that differ by less than 1e-12 are equal, and in the order of the gallery. So the
neighbours are the same with faiss and without, and for any size of the blocks.
"""

from __future__ import annotations

from typing import Any, Iterator

import numpy as np

from gitloss.errors import check, check_choice
from gitloss.metrics.verification import SIMILARITIES, unit_rows


def _library() -> Any:
    try:
        import faiss
    except ImportError:
        return None
    return faiss


faiss = _library()

_SPARE = 4  # candidates beyond the neighbours that are asked for
_BLOCK_BYTES = 128 << 20  # scores of a block in float64
_GATHERED_BYTES = 16 << 20  # rows of candidates in float64
_GATHERED = 1000  # scores that a query of faiss is reckoned with
_TIE = 1e-12  # of the square of the lengths: more than the rounding of a float64 product
# Gathering the rows of the candidates takes as long as a product with so many rows each.
ROWS_PER_CANDIDATE = 50
_GROUP = 100  # scores whose largest one is looked at first


class Gallery:
    """Embeddings to search in.

    Args:
      embeddings: float [k, dim].
      similarity: cosine or euclidean, see `verification.pair_scores`.
      use_faiss: whether faiss finds the candidates; None: if it is installed.

    Raises:
      ValueError: there are no embeddings, one is refused, or faiss is not installed.
    """

    def __init__(
        self, embeddings: np.ndarray, similarity: str = 'cosine', use_faiss: bool | None = None
    ) -> None:
        check_choice('similarity', similarity, SIMILARITIES)
        embeddings = np.asarray(embeddings)
        check(embeddings.ndim == 2 and embeddings.size, 'gallery', '[k, dim]', embeddings.shape)
        self._is_cosine = similarity == 'cosine'
        rows = np.asarray(embeddings, np.float64)
        check(np.all(np.isfinite(rows)), 'gallery', 'finite embeddings', 'NaN or infinity')
        # Near the origin the expansion of squared distances cancels least.
        self._origin = np.zeros(rows.shape[1]) if self._is_cosine else rows.mean(axis=0)
        self._rows = self._prepared(rows)
        self._fast = self._rows.astype(np.float32)
        self._squares = np.einsum('nd,nd->n', self._rows, self._rows)
        self._index: Any = None
        if faiss is not None and use_faiss is not False:
            kind = faiss.IndexFlatIP if self._is_cosine else faiss.IndexFlatL2
            self._index = kind(rows.shape[1])
            self._index.add(np.ascontiguousarray(self._fast))
        check(
            use_faiss is not True or self._index,
            'use_faiss',
            'faiss to be installed',
            'none; pip install "faiss-cpu>=1.7"',
        )

    def __len__(self) -> int:
        return len(self._rows)

    def _prepared(self, embeddings: np.ndarray) -> np.ndarray:
        if self._is_cosine:
            return unit_rows(embeddings)
        return np.asarray(embeddings, np.float64) - self._origin

    def search(
        self, queries: np.ndarray, k: int, own: np.ndarray | None = None, block: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The k nearest of each query, nearest first; equal scores in the order of the gallery.

        Args:
          queries: float [q, dim].
          k: at most the size of the gallery, without the query itself if `own` is given.
          own: int [q], the rows of the gallery that are the queries themselves, and left out.
          block: queries at a time; None: as many as have 128 MiB of scores.

        Yields:
          (rows of the gallery int64 [b, k], scores float64 [b, k]) for b queries at a time: the
          cosine, or the negative Euclidean distance.

        Raises:
          ValueError: the dimensions differ, k is out of range, or a query is refused.
        """
        queries = np.asarray(queries)
        is_fit = queries.ndim == 2 and queries.shape[1] == self._rows.shape[1]
        check(is_fit, 'queries', f'[q, {self._rows.shape[1]}]', list(queries.shape))
        most = len(self) - (own is not None)
        check(1 <= k <= most, 'k', f'1 to {most}', k)
        in_faiss = self._index is not None and not self._is_small(k + _SPARE + 1)
        scores = _GATHERED if in_faiss else len(self)  # of a query, in memory
        block = block or max(1, _BLOCK_BYTES // (8 * scores))
        for start in range(0, len(queries), block):
            part = slice(start, start + block)
            if own is not None:
                mine = np.asarray(own)[part]
                yield self._nearest(self._rows[mine], k, mine)
                continue
            prepared = self._prepared(queries[part])
            check(np.all(np.isfinite(prepared)), 'queries', 'finite embeddings', 'NaN or infinity')
            yield self._nearest(prepared, k, None)

    def _is_small(self, count: int) -> bool:
        """Whether so many candidates cost as much as the whole gallery."""
        return len(self) <= ROWS_PER_CANDIDATE * count

    def _nearest(
        self, queries: np.ndarray, k: int, own: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        count = min(len(self), k + _SPARE + (own is not None))
        lengths, largest = _lengths(queries), np.sqrt(self._squares.max())
        scale = lengths * largest if self._is_cosine else (lengths + largest) ** 2
        if self._is_small(count):
            rows, scores, lowest = _best(self._exact(queries), count)
            error = _TIE * scale
        else:
            rows, lowest = self._candidates(queries, count)
            scores = self._exact_of(queries, rows)
            # A sum of n products has an error of at most n half units of rounding.
            error = (queries.shape[1] + 8) / 2 * np.finfo(np.float32).eps * scale
        rows, scores = _ordered(rows, scores, _TIE * scale, k, own)
        # No row that is no candidate can score more than the lowest one did, but for rounding.
        unsafe = np.flatnonzero(scores[:, -1] <= lowest + error)
        most = max(1, _BLOCK_BYTES // (8 * len(self)))  # a collapsed network makes all unsafe
        for start in range(0, len(unsafe) if count < len(self) else 0, most):
            some = unsafe[start : start + most]
            whole = np.broadcast_to(np.arange(len(self)), (len(some), len(self)))
            theirs = None if own is None else own[some]
            exact, tie = self._exact(queries[some]), _TIE * scale[some]
            rows[some], scores[some] = _ordered(whole, exact, tie, k, theirs)
        if self._is_cosine:
            return rows, np.clip(scores, -1.0, 1.0)
        return rows, -np.sqrt(np.where(-scores > _TIE * scale[:, None], -scores, 0.0))

    def _candidates(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows int64 [q, count], the lowest of their float32 scores [q])."""
        fast = queries.astype(np.float32)
        if self._index is None:
            return _best(self._scores(fast, self._fast), count)[::2]
        found, rows = self._index.search(np.ascontiguousarray(fast), count)
        return rows, (found if self._is_cosine else -found).min(axis=1)

    def _exact(self, queries: np.ndarray) -> np.ndarray:
        """Scores of all rows, float64 [q, k]: cosines or negative squared distances."""
        return self._scores(queries, self._rows)

    def _scores(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        scores = queries.dot(rows.T)
        if not self._is_cosine:
            scores *= 2
            scores -= self._squares.astype(scores.dtype)
            scores -= np.einsum('qd,qd->q', queries, queries)[:, None]
        return scores

    def _exact_of(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The same of some rows [q, count]: float64 [q, count]."""
        scores = np.empty(rows.shape, np.float64)
        size = max(1, _GATHERED_BYTES // (8 * rows.shape[1] * queries.shape[1]))
        for start in range(0, len(queries), size):
            part = slice(start, start + size)
            others = self._rows[rows[part]]
            if self._is_cosine:
                scores[part] = np.einsum('qcd,qd->qc', others, queries[part])
            else:
                others -= queries[part, None, :]
                scores[part] = -np.einsum('qcd,qcd->qc', others, others)
        return scores


def _best(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The `count` highest scores of each row: (columns, scores [q, count], the lowest [q])."""
    size = scores.shape[1]
    if count == size:
        columns, values = np.broadcast_to(np.arange(count), scores.shape), scores
    elif count > size // (2 * _GROUP):
        columns, values = _highest(scores, count)
    else:
        # The groups with the highest maxima have the highest scores: five times as fast.
        maxima = np.maximum.reduceat(scores, np.arange(0, size, _GROUP), axis=1)
        groups, _ = _highest(maxima, count)
        places = (groups[:, :, None] * _GROUP + np.arange(_GROUP)).reshape(len(scores), -1)
        inside = np.take_along_axis(scores, np.minimum(places, size - 1), axis=1)
        inside[places >= size] = -np.inf  # the last group may be short
        chosen, values = _highest(inside, count)
        columns = np.take_along_axis(places, chosen, axis=1)
    return columns, values, values.min(axis=1)


def _highest(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    columns = np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]
    return columns, np.take_along_axis(scores, columns, axis=1)


def _lengths(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum('nd,nd->n', rows, rows))


def _ordered(
    rows: np.ndarray, scores: np.ndarray, tie: np.ndarray, k: int, own: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of candidates by score, those that differ by less than `tie` by row."""
    if own is not None:
        scores = np.where(rows == own[:, None], -np.inf, scores)
    order = np.argsort(-scores, axis=1)
    rows, scores = (np.take_along_axis(each, order, axis=1) for each in (rows, scores))
    # Of equal scores, all but the first are followers in a group of one number.
    with np.errstate(invalid='ignore'):
        begins = ~(scores[:, :-1] - scores[:, 1:] < tie[:, None])
    if not np.all(begins):
        groups = np.zeros(scores.shape, np.int64)
        np.cumsum(begins, axis=1, out=groups[:, 1:])
        order = np.lexsort((rows, groups), axis=1)
        rows, scores = (np.take_along_axis(each, order, axis=1) for each in (rows, scores))
    return rows[:, :k].astype(np.int64), scores[:, :k].copy()
