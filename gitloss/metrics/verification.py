"""Verification: are two images of one person? Exact figures of scored pairs.

The score of a pair is the higher, the more alike its images are. A pair is *genuine* if they are of
one person, else *impostor*, and accepted if its score is at least the threshold. FAR, the false
accept rate, is the fraction of the impostor pairs that are accepted; TAR, the true accept rate,
that of the genuine pairs.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Sequence

import numpy as np

from gitloss.errors import check, check_choice

SIMILARITIES = ('cosine', 'euclidean')


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """The rows, float64 [n, dim], at length 1.

    Raises:
      ValueError: a row is zero, which has no direction, or not finite.
    """
    rows = np.asarray(embeddings, np.float64)
    lengths = np.sqrt(np.einsum('nd,nd->n', rows, rows))
    with np.errstate(invalid='ignore'):  # NumPy before 1.20 warns of NaN > 0
        wrong = np.flatnonzero(~((lengths > 0) & np.isfinite(lengths)))
    check(
        not len(wrong),
        'embeddings',
        'finite numbers, not all of them 0 in a row',
        f'{len(wrong)} other rows, the first of them row {wrong[0] if len(wrong) else ""}',
    )
    return rows / lengths[:, None]


def pair_scores(first: np.ndarray, second: np.ndarray, similarity: str = 'cosine') -> np.ndarray:
    """The scores of pairs of embeddings: float64 [n].

    Args:
      first, second: float [n, dim].
      similarity: cosine; or euclidean, the negative Euclidean distance of the embeddings as they
        are. For embeddings of unit length both give the same order of the pairs, and so the same
        figures but for the thresholds.

    Raises:
      ValueError: an embedding is not finite, or zero with `cosine`.
    """
    if check_choice('similarity', similarity, SIMILARITIES) == 'cosine':
        scores = np.einsum('nd,nd->n', unit_rows(first), unit_rows(second))
        return np.clip(scores, -1.0, 1.0)  # so that an angle can be taken
    difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    scores = -np.sqrt(np.einsum('nd,nd->n', difference, difference))
    check(np.all(np.isfinite(scores)), 'embeddings', 'finite numbers', 'NaN or infinity')
    return scores


class Point(NamedTuple):
    """A threshold, and the rates with it."""

    threshold: float
    far: float
    tar: float


class Roc:
    """The exact ROC curve of scored pairs: one point for each score that occurs.

    Args:
      scores: float [n].
      genuine: bool [n].

    Attributes:
      thresholds: float64 [k + 1], decreasing. The first one is above all scores.
      impostors, genuines: number of pairs of each kind; sums of weights, see `weighted`.
      false_accepts, true_accepts: float64 [k + 1], the accepted pairs of each kind.
      far, tar: float64 [k + 1], from 0 to 1; NaN without pairs of the kind.

    Raises:
      ValueError: the shapes differ, there are no pairs, or a score is not finite.
    """

    def __init__(self, scores: np.ndarray, genuine: np.ndarray) -> None:
        scores, genuine = np.asarray(scores, np.float64), np.asarray(genuine)
        is_fit = scores.ndim == 1 and genuine.dtype == bool and genuine.shape == scores.shape
        shapes = f'{list(scores.shape)} and {genuine.dtype} {list(genuine.shape)}'
        check(is_fit and len(scores), 'scores and genuine', '[n] and bool [n], n > 0', shapes)
        wrong = np.flatnonzero(~np.isfinite(scores))
        first = f'{scores[wrong[0]]} at {wrong[0]}' if len(wrong) else ''
        check(not len(wrong), 'scores', 'finite numbers', first)
        self._order = np.argsort(-scores, kind='stable')
        self._genuine = genuine[self._order]
        scores = scores[self._order]
        self._ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
        self.thresholds = np.append(np.nextafter(scores[0], np.inf), scores[self._ends])
        self._weigh(np.ones(len(scores)))

    def weighted(self, weights: np.ndarray) -> Roc:
        """The curve of the same pairs with other weights, float [n], of a bootstrap sample."""
        curve = copy.copy(self)
        curve._weigh(np.asarray(weights, np.float64)[self._order])
        return curve

    def _weigh(self, weights: np.ndarray) -> None:
        accepted = np.cumsum(weights)[self._ends]
        genuine = np.cumsum(np.where(self._genuine, weights, 0.0))[self._ends]
        self.true_accepts = np.append(0.0, genuine)
        self.false_accepts = np.append(0.0, accepted - genuine)
        self.genuines, self.impostors = self.true_accepts[-1], self.false_accepts[-1]
        self.far = self.false_accepts / (self.impostors or np.nan)
        self.tar = self.true_accepts / (self.genuines or np.nan)

    @property
    def is_defined(self) -> bool:
        """Whether there are pairs of both kinds, without which there is no curve."""
        return bool(self.genuines and self.impostors)

    def auc(self) -> float | None:
        """Area under the curve: the probability that a genuine pair scores more than an impostor
        pair, ties counting one half. None if the curve is not defined.
        """
        if not self.is_defined:
            return None
        heights = self.true_accepts[1:] + self.true_accepts[:-1]
        area = np.sum(np.diff(self.false_accepts) * heights) / 2
        return float(area / (self.impostors * self.genuines))

    def eer(self) -> float | None:
        """Equal error rate: the FAR where FAR = 1 - TAR on the straight line between the two
        neighbouring points. None if the curve is not defined.
        """
        if not self.is_defined:
            return None
        far, excess = self.far, self.far - (1.0 - self.tar)  # which rises from -1 to 1
        after = int(np.argmax(excess >= 0))
        share = -excess[after - 1] / (excess[after] - excess[after - 1])
        return float(far[after - 1] + share * (far[after] - far[after - 1]))

    def at_far(self, target: float) -> Point | None:
        """The point with the largest FAR that does not exceed `target`.

        None if it is not defined: without genuine pairs, or with fewer than 1 / target impostor
        pairs, of which none may then be accepted.
        """
        if not self.is_defined or target < 1.0 / self.impostors:
            return None
        place = int(np.searchsorted(self.far, target, side='right')) - 1
        return Point(*(float(v[place]) for v in (self.thresholds, self.far, self.tar)))

    def most_accurate(self) -> Point:
        """The threshold with which most pairs are right: halfway between two neighbouring scores.

        Of several, the highest one, which accepts fewest pairs. Above all scores, it is the next
        number above them; below, the lowest score.
        """
        right = self.true_accepts + (self.impostors - self.false_accepts)
        place = int(np.argmax(right))
        threshold = self.thresholds[place]
        if 0 < place < len(self.thresholds) - 1:
            middle = threshold + (self.thresholds[place + 1] - threshold) / 2
            # Between neighbouring numbers there is none: the sum is rounded to one of the two.
            threshold = middle if middle > self.thresholds[place + 1] else threshold
        return Point(*(float(v) for v in (threshold, self.far[place], self.tar[place])))


def stratified_folds(genuine: np.ndarray, count: int = 10, seed: int = 0) -> np.ndarray:
    """Folds for pairs that come without: int64 [n] in [0, count), shuffled by `seed`.

    The folds differ by at most one in genuine pairs, and by at most one in pairs. Unlike those of
    LFW, two folds may share people.

    Raises:
      ValueError: fewer pairs than folds, or less than two folds.
    """
    genuine = np.asarray(genuine, bool)
    check(2 <= count <= len(genuine), 'folds', f'2 to the {len(genuine)} of the pairs', count)
    random, folds = np.random.RandomState(seed), np.empty(len(genuine), np.int64)
    dealt = 0
    for kind in (True, False):
        pairs = random.permutation(np.flatnonzero(genuine == kind))
        folds[pairs] = (dealt + np.arange(len(pairs))) % count
        dealt += len(pairs)
    return folds


class Accuracy(NamedTuple):
    """mean, std: of the folds, std with n - 1 as divisor. error: the standard error of the mean.
    folds: {'fold', 'pairs', 'threshold', 'accuracy'} of each fold.
    """

    mean: float
    std: float
    error: float
    folds: Sequence[dict[str, Any]]


def fold_accuracy(scores: np.ndarray, genuine: np.ndarray, folds: np.ndarray) -> Accuracy:
    """Accuracy on each fold with the threshold that is best on all other folds.

    Args:
      scores: float [n].
      genuine: bool [n].
      folds: integers [n].

    Raises:
      ValueError: there is only one fold, or what `Roc` refuses.
    """
    scores, genuine, folds = np.asarray(scores, np.float64), np.asarray(genuine), np.asarray(folds)
    numbers = np.unique(folds)
    check(
        len(numbers) > 1 and folds.shape == scores.shape,
        'folds',
        f'2 or more, a number for each of {list(scores.shape)} pairs',
        f'{len(numbers)}, {list(folds.shape)}',
    )
    results = []
    for number in numbers:
        held_out = folds == number
        threshold = Roc(scores[~held_out], genuine[~held_out]).most_accurate().threshold
        accuracy = np.mean((scores[held_out] >= threshold) == genuine[held_out])
        results.append(
            {
                'fold': int(number),
                'pairs': int(held_out.sum()),
                'threshold': threshold,
                'accuracy': float(accuracy),
            }
        )
    values = np.array([each['accuracy'] for each in results])
    std = float(values.std(ddof=1))
    return Accuracy(float(values.mean()), std, std / float(np.sqrt(len(values))), results)
