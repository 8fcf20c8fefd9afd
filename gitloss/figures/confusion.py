"""The confusion matrix as a Matplotlib figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from gitloss.figures.plots import new_figure

MOST_CLASSES = 1000  # no picture can show more
_FEW_CLASSES, _NAMED_CLASSES = 20, 50  # up to which cells have numbers and classes have ticks


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> Figure:
    """Rows are true classes, columns predicted ones, the shade is the share of the row.

    Shades grow with a power of 0.4, so that one percent is visible; a single hue is safe for
    colour-blind readers. Up to 20 classes the cells have counts, up to 50 the axes name all.

    Args:
      labels: int [n] in [0, num_classes).
      predictions: int [n]. One outside [0, num_classes) counts in its row and has no column.
      num_classes: size of the matrix.

    Returns:
      A figure of 640 x 600 pixels, of 900 x 860 for more than 20 classes.

    Raises:
      ValueError: more than 1000 classes, which no picture can show.
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
    shares = counts / np.maximum(np.bincount(labels, minlength=num_classes), 1)[:, None]
    size = (6.4, 6.0) if num_classes <= _FEW_CLASSES else (9.0, 8.6)
    figure, axes = new_figure(*size, (0.1, 0.09, 0.78, 0.84))
    norm = PowerNorm(0.4, 0.0, 1.0)
    image = axes.imshow(shares, cmap='Blues', norm=norm, interpolation='nearest')
    place = (0.9, 0.09 + 0.84 * 0.04, 0.02, 0.84 * 0.92)
    bar = figure.colorbar(image, cax=figure.add_axes(place), ticks=[0, 0.01, 0.1, 0.5, 1])
    bar.ax.set_yticklabels(['0', '1%', '10%', '50%', '100%'], fontsize=9)
    _label(axes, counts, shares)
    right = int(np.sum(labels == predictions))
    percent = 100.0 * right / max(len(labels), 1)
    axes.set_title(f'{right} of {len(labels)} right ({percent:.2f}%)', fontsize=12)
    return figure


def _label(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    """Counts in the cells, ticks and names of the axes."""
    classes = len(counts)
    if classes <= _FEW_CLASSES:
        size = 11 if classes <= 10 else 7
        for row, column in zip(*np.nonzero(counts)):
            colour = 'white' if shares[row, column] > 0.25 else 'black'
            text = str(counts[row, column])
            axes.text(column, row, text, ha='center', va='center', fontsize=size, color=colour)
    if classes <= _NAMED_CLASSES:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
        axes.tick_params(labelsize=11 if classes <= 10 else 9 if classes <= _FEW_CLASSES else 7)
        if classes > _FEW_CLASSES:
            axes.tick_params(axis='x', rotation=90)
    axes.set_xlabel('predicted class')
    axes.set_ylabel('true class')
