"""Class means of a Source, and the distances within and between its classes.

Sums of all classes stand in a table while it is small. Else the samples are swept in the order of
their classes: a class is complete when its last sample has passed, and no table is needed.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence

import numpy as np

from callbacks.base import Handle
from gitloss import metrics
from gitloss.data.source import Source
from gitloss.data.subset import View
from gitloss.metrics import ClassSums, Metric, whole_classes

# Of the table, float64 [classes, dim].
TABLE_BYTES = 256 << 20
# Embeddings up to this many bytes stay in memory for the distances, which need the class means.
# Larger ones are computed again: of a Source with a table, or of a class.
KEPT_BYTES = 256 << 20
PAIRED = 2000  # class means between which distances are measured, evenly spaced
# What `class_distances` computes.
DISTANCES = (
    Metric('inter_cls_dist', 'inter-class distance', 'distance', True, label='inter'),
    Metric('intra_cls_dist', 'intra-class distance', 'distance', False, label='intra'),
    Metric('inter_over_intra', 'inter / intra', 'distance', True),
)
# Only of estimates.
ERRORS = (
    Metric('inter_cls_dist_error', 'inter-class distance, standard error', 'distance'),
    Metric('intra_cls_dist_error', 'intra-class distance, standard error', 'distance'),
)
_NONE = np.empty(0)  # spreads


class Classes(NamedTuple):
    """Some classes, all of whose samples have been swept.

    numbers: int [k].
    means: float64 [k, dim], of the embeddings.
    centers: float64 [k, dim], the means; with distance "cosine" those of embeddings of length 1.
    spreads: float64 [k], mean distance of the samples to the mean; [0] without `with_spreads`.
    """

    numbers: np.ndarray
    means: np.ndarray
    centers: np.ndarray
    spreads: np.ndarray


class Sweeping(NamedTuple):
    """How classes are swept.

    distance: see Classes.centers.
    with_spreads: see Classes.spreads. Without, no sample is swept twice.
    """

    handle: Handle
    distance: str = 'euclidean'
    with_spreads: bool = True

    def classes(
        self, source: Source, num_classes: int, taken: np.ndarray | None = None
    ) -> Iterator[Classes]:
        """The classes of a Source that have samples.

        Args:
          taken: some of them, increasing; None: all.
        """
        dim, counts = self.handle.options['embedding_dim'], np.bincount(source.labels)
        present = np.flatnonzero(counts)
        taken = present if taken is None else taken
        if num_classes * dim * 8 <= TABLE_BYTES and len(taken) == len(present):
            yield self._by_table(source, num_classes)
            return
        is_large = counts[taken] * (dim * 4) > KEPT_BYTES
        is_small = np.zeros(len(counts), bool)
        is_small[taken[~is_large]] = True
        yield from self._in_order(source, is_small)
        for number in taken[is_large]:
            samples = np.flatnonzero(source.labels == number)
            alone = View(source, samples, np.zeros(len(samples), np.int32))
            yield self._by_table(alone, 1)._replace(numbers=np.array([number]))

    def _batches(self, source: Source) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        swept = self.handle.sweep(source, with_predictions=False)
        return ((embeddings, labels) for embeddings, _, labels, _ in swept)

    def _unit(self, embeddings: np.ndarray) -> np.ndarray:
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        return embeddings / np.maximum(norms, 1e-12)

    def _by_table(self, source: Source, num_classes: int) -> Classes:
        """All classes with samples, in one sweep, or two if the embeddings are not kept."""
        sums = ClassSums(num_classes)
        for_centers = ClassSums(num_classes) if self.distance == 'cosine' else sums
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        for embeddings, labels in self._batches(source):
            sums.add(embeddings, labels)
            if for_centers is not sums:
                for_centers.add(self._unit(embeddings), labels)
            if self.with_spreads and embeddings[0].nbytes * len(source.labels) <= KEPT_BYTES:
                kept.append((embeddings, labels))
        means, spreads, present = sums.means(), _NONE, np.flatnonzero(sums.counts)
        if self.with_spreads:
            spreads = metrics.class_spreads(kept or self._batches(source), means)
        is_whole = len(present) == num_classes  # no copy then
        found = means if is_whole else means[present]
        centers = found if for_centers is sums else for_centers.means()[present]
        return Classes(present, found, centers, spreads)

    def _in_order(self, source: Source, chosen: np.ndarray) -> Iterator[Classes]:
        """The chosen classes, none of which is large, in one sweep: a few at a time."""
        samples = np.flatnonzero(chosen[source.labels])
        if not len(samples):
            return
        samples = samples[np.argsort(source.labels[samples], kind='stable')]
        for embeddings, labels in whole_classes.groups(self._batches(View(source, samples))):
            numbers, means = whole_classes.means(embeddings, labels)
            spreads, centers = _NONE, means
            if self.with_spreads:
                spreads = whole_classes.spreads(embeddings, labels, means)
            if self.distance == 'cosine':
                _, centers = whole_classes.means(self._unit(embeddings), labels)
            yield Classes(numbers, means, centers, spreads)


def class_distances(
    handle: Handle,
    source: Source,
    num_classes: int,
    samples: int = 0,
    shown: int = 0,
    distance: str = 'euclidean',
    each: Callable[[Classes], Any] = lambda classes: None,
) -> tuple[dict[str, float], np.ndarray]:
    """Euclidean distances within and between the classes of a Source that have samples.

    Args:
      handle: computes one sweep; of more than KEPT_BYTES of embeddings, for a table or of a class,
        two.
      samples: of a larger Source the classes of `metrics.sampled_classes` are measured; 0: all.
      shown: number of class means to return.
      distance: see Classes.centers.
      each: called with all classes that are measured, some at a time.

    Returns:
      ({`intra_cls_dist`, `inter_cls_dist` and, unless the former is 0, their ratio
      `inter_over_intra`; `..._error`, standard errors of what is estimated: of `samples` both, of
      more than PAIRED classes the latter}, the means of `shown` evenly spaced classes, float64
      [min(shown, num_classes), dim], NaN for a class that was not measured). If not all of more
      classes than `shown` are measured, measured ones are shown, first.
    """
    counts = np.bincount(source.labels, minlength=num_classes)
    taken, population = metrics.sampled_classes(counts, samples), int(np.count_nonzero(counts))
    paired = taken[metrics.evenly_spaced(len(taken), PAIRED)]
    pictured = metrics.evenly_spaced(num_classes, shown)
    if len(taken) < population and shown < num_classes:
        pictured = taken[metrics.evenly_spaced(len(taken), shown)]
    wanted = np.union1d(paired, pictured)
    swept = Sweeping(handle, distance).classes(source, num_classes, taken)
    means = np.full((len(wanted), handle.options['embedding_dim']), np.nan)
    spreads = np.concatenate([_noted(classes, wanted, means, each) for classes in swept])
    result = _distances(spreads, means[np.searchsorted(wanted, paired)], population)
    pictures = np.full((min(shown, num_classes), means.shape[1]), np.nan)
    pictures[: len(pictured)] = means[np.searchsorted(wanted, pictured)]
    return result, pictures


def fits(count: int, num_classes: int, dim: int) -> bool:
    """Whether the embeddings of `count` samples, and sums of all classes, are kept in memory."""
    return count * dim * 4 <= KEPT_BYTES and num_classes * dim * 8 <= TABLE_BYTES


def distances_of(batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The result of `class_distances` for embeddings that have been swept.

    Args:
      batches: (embeddings float [n, dim], labels int [n]) of all samples.
    """
    sums = ClassSums(1 + max(int(labels.max()) for _, labels in batches))
    for embeddings, labels in batches:
        sums.add(embeddings, labels)
    means, present = sums.means(), np.flatnonzero(sums.counts)
    paired = means[present[metrics.evenly_spaced(len(present), PAIRED)]]
    return _distances(metrics.class_spreads(batches, means), paired, len(present))


def _noted(
    classes: Classes, wanted: np.ndarray, means: np.ndarray, each: Callable[[Classes], Any]
) -> np.ndarray:
    """Calls `each`, writes the means of the wanted classes into `means` and returns the spreads."""
    each(classes)
    rows = np.isin(classes.numbers, wanted)
    means[np.searchsorted(wanted, classes.numbers[rows])] = classes.means[rows]
    return classes.spreads


def _distances(spreads: np.ndarray, paired: np.ndarray, population: int) -> dict[str, float]:
    intra, (inter, error) = float(np.mean(spreads)), metrics.mean_pair_distance(paired, population)
    result = {'intra_cls_dist': intra, 'inter_cls_dist': inter}
    if intra > 0:
        result['inter_over_intra'] = inter / intra
    if len(spreads) < population:
        result['intra_cls_dist_error'] = metrics.standard_error(spreads, population)
    if len(paired) < population:
        result['inter_cls_dist_error'] = error
    return result
