"""The confusion matrix of a classifier as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from gitloss.figures.plots import new_figure

MOST_CLASSES = 1000  # that a picture can show


def _draw_counts(axes: Any, counts: np.ndarray, fractions: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(counts)):
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha='center',
            va='center',
            fontsize=11 if len(counts) <= 10 else 7,
            color='white' if fractions[row, column] > 0.25 else 'black',
        )


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> Figure:
    """Confusion matrix: rows are true classes, columns predicted ones, the shade is the fraction of
    the row.

    Shades follow the fraction to the power 0.4, which keeps one percent visible. One hue from light
    to dark is safe for colour-blind readers.

    Args:
      labels: int [n] in [0, num_classes).
      predictions: int [n]; a prediction outside [0, num_classes) counts in its row only.
      num_classes: size of the matrix. Up to 20 classes the cells show their counts, up to 50 every
        class has a tick.

    Returns:
      A matplotlib Figure of 640 x 600 pixels, 900 x 860 for more than 20 classes.

    Raises:
      ValueError: more than 1000 classes.
    """
    if num_classes > MOST_CLASSES:
        raise ValueError(
            f'num_classes: expected at most {MOST_CLASSES} in a confusion matrix. '
            f'Received: {num_classes}'
        )
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    known = (predictions >= 0) & (predictions < num_classes)
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (labels[known], predictions[known]), 1)
    fractions = counts / np.maximum(np.bincount(labels, minlength=num_classes), 1)[:, None]
    few, right = num_classes <= 20, np.sum(labels == predictions)
    figure, axes = new_figure(
        (6.4, 6.0) if few else (9.0, 8.6),
        (0.1, 0.09, 0.78, 0.84),
        f'{right} of {len(labels)} right ({100.0 * (right / max(len(labels), 1)):.2f}%)',
        'predicted class',
        'true class',
    )
    image = axes.imshow(
        fractions, cmap='Blues', norm=PowerNorm(0.4, 0.0, 1.0), interpolation='nearest'
    )
    bar_axes = figure.add_axes((0.9, 0.09 + 0.84 * 0.04, 0.02, 0.84 * 0.92))
    bar = figure.colorbar(image, cax=bar_axes, ticks=[0, 0.01, 0.1, 0.5, 1])
    bar.ax.set_yticklabels(['0', '1%', '10%', '50%', '100%'], fontsize=9)
    if few:
        _draw_counts(axes, counts, fractions)
    if num_classes <= 50:
        axes.set(xticks=range(num_classes), yticks=range(num_classes))
        axes.tick_params(labelsize=11 if num_classes <= 10 else 9 if few else 7)
        axes.tick_params(axis='x', rotation=0 if few else 90)
    return figure
