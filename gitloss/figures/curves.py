"""Curves over the training steps, and histograms of pair distances."""

from __future__ import annotations

from typing import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gitloss.figures.canvas import COLOURS, new_figure

_SIZE = (7.2, 4.2)


def curves(
    lines: Mapping[str, Sequence[Sequence[float]]], title: str, ylabel: str, log_scale: bool = False
) -> Figure:
    """Lines over the training steps, the legend beside the plot, where it covers no line.

    Args:
      lines: {label: (steps [n], values [n])}.
      title, ylabel: texts.
      log_scale: logarithmic y axis.

    Returns:
      A matplotlib Figure of 720 x 420 pixels.
    """
    figure, axes = new_figure(_SIZE, (0.1, 0.13, 0.66, 0.77), title, 'step', ylabel)
    for place, (label, (steps, values)) in enumerate(lines.items()):
        axes.plot(
            steps,
            values,
            color=COLOURS[(0, 6, 3, 2, 8, 4)[place % 6]],
            linestyle=('-', '--', '-.', ':')[place % 4],
            marker='o' if len(steps) < 30 else None,
            markersize=3,
            label=label,
        )
    if log_scale:
        axes.set_yscale('log')
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1e3 * low else (1,)))
        # 0.2 and 0.5, not powers of ten
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    axes.grid(True, linewidth=0.4, alpha=0.5)
    if lines:
        axes.legend(
            loc='upper left',
            bbox_to_anchor=(1.0, 1.02),
            fontsize=10,
            frameon=False,
            handlelength=2.6,
        )
    return figure


def distances(
    genuine: np.ndarray, impostor: np.ndarray, title: str = 'distances between validation samples'
) -> Figure:
    """Histograms of the distances of genuine (same class) and impostor (two classes) pairs.

    Args:
      genuine, impostor: float [n], [k]; each histogram has area 1.
      title: text above the plot.

    Returns:
      A matplotlib Figure of 720 x 420 pixels.
    """
    labels = 'Euclidean distance', 'probability density'
    figure, axes = new_figure(_SIZE, (0.11, 0.13, 0.86, 0.77), title, *labels)
    largest = max(float(np.max(part)) if len(part) else 0.0 for part in (genuine, impostor)) or 1.0
    for part, label, colour, hatch in (
        (genuine, 'genuine: same class', COLOURS[3], None),
        (impostor, 'impostor: different classes', COLOURS[6], '//'),
    ):
        if len(part):
            axes.hist(
                part,
                np.linspace(0.0, largest, 81).tolist(),
                density=True,
                alpha=0.6,
                color=colour,
                hatch=hatch,
                edgecolor='white',
                linewidth=0.2,
                label=label,
            )
    axes.set(xlim=(0.0, largest), axisbelow=True)
    axes.grid(True, linewidth=0.4, alpha=0.5)
    axes.legend(fontsize=10)
    return figure
