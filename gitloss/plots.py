"""Matplotlib figures from arrays. No TensorFlow, no display: figures are drawn by the Agg canvas and returned or saved."""
from __future__ import annotations

import os

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Ten colours that stay apart for colour-blind readers: Paul Tol's "muted" scheme and black; shapes double the code.
COLOURS = ('#332288', '#88ccee', '#44aa99', '#117733', '#999933', '#ddcc77', '#cc6677', '#882255', '#aa4499', '#000000')
MARKERS = ('o', 's', '^', 'D', 'v')


def scatter(embeddings, labels, centers, title='', limit=None):
    """The first two dimensions of the embeddings, coloured by class, with the centers marked and numbered.

    Args:
      embeddings: float [n, dim], dim >= 2 (a single dimension is drawn along a line).
      labels: int [n].
      centers: float [classes, dim]; a row of NaN is left out.
      title: text above the plot.
      limit: half-width of the square plot; None fits it to the data.

    Returns:
      A matplotlib Figure of 720 x 640 pixels, the legend beside the plot.
    """
    figure = Figure(figsize=(7.2, 6.4), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes([0.07, 0.06, 0.79, 0.88])
    points, marks = (np.pad(np.asarray(a, np.float64), ((0, 0), (0, max(0, 2 - a.shape[1]))), 'constant')[:, :2]
                     for a in (embeddings, centers))
    classes = np.unique(labels)
    for place, label in enumerate(classes):
        chosen = points[labels == label]
        axes.plot(chosen[:, 0], chosen[:, 1], linestyle='', marker=MARKERS[place // len(COLOURS) % len(MARKERS)], markersize=3,
                  alpha=0.55, markeredgewidth=0, color=COLOURS[place % len(COLOURS)], label=str(label))
    axes.plot(marks[:, 0], marks[:, 1], linestyle='', marker='X', markersize=9, color='white', markeredgecolor='black', label='center')
    for label, mark in enumerate(marks):
        if np.all(np.isfinite(mark)) and len(marks) <= 50:
            axes.annotate(str(label), mark, xytext=(6, 4), textcoords='offset points', fontsize=11, fontweight='bold')
    if limit is None:
        limit = 1.08 * float(max(np.abs(points).max() if points.size else 0.0, np.nanmax(np.abs(marks)), 1e-6))
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    axes.set_aspect('equal')
    axes.grid(True, linewidth=0.4, alpha=0.5)
    axes.set_title(title, fontsize=12)
    if len(classes) <= 20:
        legend = axes.legend(loc='upper left', bbox_to_anchor=(1.0, 1.0), fontsize=10, frameon=False, handletextpad=0.1)
        for line in getattr(legend, 'legend_handles', None) or legend.legendHandles:  # renamed in Matplotlib 3.7
            line.set_markersize(9)
            line.set_alpha(1)
    return figure


def save_png(figure, path):
    """Writes a figure as PNG, whole or not at all."""
    temporary = '%s.%d.tmp' % (path, os.getpid())
    figure.savefig(temporary, format='png')
    os.replace(temporary, path)
