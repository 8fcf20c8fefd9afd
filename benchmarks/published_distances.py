"""The distances of a run's checkpoints, measured as the published code measured them and otherwise.

    python benchmarks/published_distances.py output/0 [--data_path=DIR]

The published NPU run ends with an intra-class distance of 0.119 and this project's, five seeds,
with 0.178 to 0.243. Can the way of measuring explain it? Each checkpoint of the run is measured on
the training images in three ways: with exact class means; with the mean of the means of batches of
128, as in the published code; and with embeddings rounded to float16. Prints a line for each, and
the distances between class means that are behind the running means of the published tables.
"""

from __future__ import annotations

import glob
import os
from typing import Any

import measuring
import numpy as np

from gitloss import metrics
from trainers import checkpoints, devices, loading
from trainers.engine import runtime
from trainers.options import Options

BATCH = 128
# After 1000, 2000, ... steps on the NPU: "inter", a mean over all measurements so far, and "intra".
RUNNING = (5.62, 6.16, 6.21, 6.34, 6.38, 6.35, 6.22, 6.04)
INTRA = (0.41, 0.33, 0.25, 0.20, 0.17, 0.15, 0.16, 0.12)


def fresh(running: tuple[float, ...]) -> list[float]:
    """The values of which these are the running means: n r_n - (n - 1) r_(n-1)."""
    sums = [place * value for place, value in enumerate(running, 1)]
    return [sums[0], *(after - before for before, after in zip(sums, sums[1:]))]


def distances(points: np.ndarray, labels: np.ndarray, means: np.ndarray) -> tuple[float, float]:
    """(inter, intra) with given class means."""
    counts = np.bincount(labels, minlength=len(means))
    inter = metrics.inter_class_distance(means, counts)
    return inter, metrics.intra_class_distance([(points, labels)], means)


def exact_means(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    sums = metrics.ClassSums(int(labels.max()) + 1)
    sums.add(points, labels)
    return sums.means()


def means_of_batches(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean over batches of the class means of each, of the batches with samples of a class."""
    classes = int(labels.max()) + 1
    totals, batches = np.zeros((classes, points.shape[1])), np.zeros(classes)
    for start in range(0, len(points), BATCH):
        part, own = points[start : start + BATCH], labels[start : start + BATCH]
        for label in np.unique(own):
            totals[label] += part[own == label].mean(axis=0)
            batches[label] += 1
    return totals / np.maximum(batches, 1)[:, None]


def swept(checkpoint: Any, data_path: str) -> tuple[np.ndarray, np.ndarray]:
    """(embeddings, labels) of the training images."""
    settings = Options.restored(checkpoints.options_of(checkpoint).as_dict(), device='cpu')
    if data_path:
        settings = Options.restored(settings.as_dict(), data_path=data_path)
    dataset = loading.dataset_to_measure(settings, checkpoint)
    dataset.require('train')
    with runtime.evaluation(checkpoint, settings, devices.choose(settings)) as handle:
        batches = list(handle.sweep(dataset.train, with_predictions=False))
    points, labels = (np.concatenate([batch[place] for batch in batches]) for place in (0, 2))
    return points, labels


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument('run', help='folder of a run')
    parser.add_argument('--data_path', default='', help='the data, if they have moved')
    arguments = parser.parse_args()
    print('| checkpoint | measured with | inter | intra | inter / intra |\n|---|---|---|---|---|')
    for path in sorted(glob.glob(os.path.join(arguments.run, 'ckpt', 'step-*'))):
        checkpoint = checkpoints.find(path, 'run')
        points, labels = swept(checkpoint, arguments.data_path)
        half = points.astype(np.float16).astype(np.float64)
        for name, rows, means in (
            ('exact means', points, exact_means(points, labels)),
            (f'means of batches of {BATCH}', points, means_of_batches(points, labels)),
            ('embeddings in float16', half, exact_means(half, labels)),
        ):
            inter, intra = distances(rows, labels, means)
            print(
                f'| {checkpoint.step} | {name} | {inter:.4f} | {intra:.4f} | {inter / intra:.2f} |'
            )
    for place, (inter, intra) in enumerate(zip(fresh(RUNNING), INTRA), 1):
        print(f'| {place}000, NPU | published | {inter:.2f} | {intra:.2f} | {inter / intra:.1f} |')


if __name__ == '__main__':
    main()
