"""The confusion matrix of a classifier as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gitloss.errors import check
from gitloss.figures.plots import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 1000  # that a picture can show


def _label_classes(axes: Any, counts: np.ndarray, fractions: np.ndarray) -> None:
    """Up to 20 classes the cells show their counts, up to 50 every class has a tick."""
    classes = len(counts)
    if classes <= 20:
        for row, column in zip(*np.nonzero(counts)):
            axes.text(
                column,
                row,
                str(counts[row, column]),
                ha='center',
                va='center',
                fontsize=11 if classes <= 10 else 7,
                color='white' if fractions[row, column] > 0.25 else 'black',
            )
    if classes <= 50:
        axes.set(xticks=range(classes), yticks=range(classes))
        axes.tick_params(labelsize=11 if classes <= 10 else 9 if classes <= 20 else 7)
        axes.tick_params(axis='x', rotation=0 if classes <= 20 else 90)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> Figure:
    """Confusion matrix: rows are true classes, columns predicted ones, the shade is the fraction of
    the row to the power 0.4, which keeps 1 % visible, in one hue, safe for colour-blind readers.

    Args:
      labels: int [n] in [0, num_classes).
      predictions: int [n]; a prediction outside [0, num_classes) counts in its row only.
      num_classes: size of the matrix.

    Returns:
      A matplotlib Figure of 640 x 600 pixels, 900 x 860 for more than 20 classes.

    Raises:
      ValueError: more than 1000 classes.
    """
    from matplotlib.colors import PowerNorm

    most = f'at most {MOST_CLASSES} in a confusion matrix'
    check(num_classes <= MOST_CLASSES, 'num_classes', most, num_classes)
    bins = np.arange(num_classes + 1) - 0.5
    counts = np.histogram2d(labels, predictions, [bins, bins])[0].astype(np.int64)
    fractions = counts / np.maximum(np.bincount(labels, minlength=num_classes), 1)[:, None]
    right = np.sum(labels == predictions)
    figure, axes = new_figure(
        (6.4, 6.0) if num_classes <= 20 else (9.0, 8.6),
        (0.1, 0.09, 0.78, 0.84),
        f'{right} of {len(labels)} right ({100.0 * (right / max(len(labels), 1)):.2f}%)',
        'predicted class',
        'true class',
    )
    axes.grid(False)
    norm = PowerNorm(0.4, 0.0, 1.0)
    image = axes.imshow(fractions, cmap='Blues', norm=norm, interpolation='nearest')
    bar = figure.add_axes((0.9, 0.09 + 0.84 * 0.04, 0.02, 0.84 * 0.92))
    figure.colorbar(image, cax=bar, ticks=[0, 0.01, 0.1, 0.5, 1])
    bar.set_yticklabels(['0', '1%', '10%', '50%', '100%'], fontsize=9)
    _label_classes(axes, counts, fractions)
    return figure
