"""ROC curves and histograms of the scores of a verification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping

import numpy as np

from gitloss.figures.plots import COLOURS, new_figure
from gitloss.metrics.verification import Roc

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE = (7.2, 4.8)
_MOST_POINTS = 5000  # of a drawn curve


def roc(curves: Mapping[str, Roc], title: str = 'verification') -> Figure:
    """TAR over FAR, which has a logarithmic axis that begins at one impostor pair.

    Args:
      curves: {label: curve with pairs of both kinds}.
      title: text above the plot.

    Returns:
      A matplotlib Figure of 720 x 480 pixels.
    """
    figure, axes = new_figure(_SIZE, (0.1, 0.13, 0.86, 0.78), title, 'FAR', 'TAR')
    lowest = min((1.0 / curve.impostors for curve in curves.values()), default=1e-3)
    for place, (label, curve) in enumerate(curves.items()):
        far, tar = np.maximum(curve.far, lowest / 2), curve.tar
        shown = np.linspace(0, len(far) - 1, min(len(far), _MOST_POINTS)).astype(int)
        axes.step(
            far[shown],
            tar[shown],
            where='post',
            color=COLOURS[(3, 6, 0, 2)[place % 4]],
            linestyle=('-', '--')[place % 2],
            label=label,
        )
    axes.set(xscale='log', xlim=(lowest / 2, 1.0), ylim=(0.0, 1.02))
    if curves:
        axes.legend(loc='lower right', frameon=False)
    return figure


def scores(
    values: np.ndarray,
    genuine: np.ndarray,
    threshold: float | None = None,
    title: str = 'scores of pairs',
    xlabel: str = 'cosine',
) -> Figure:
    """Histograms of the scores of genuine and impostor pairs, each of area 1.

    Args:
      values: float [n].
      genuine: bool [n].
      threshold: marked by a line.
      title, xlabel: texts.

    Returns:
      A matplotlib Figure of 720 x 480 pixels.
    """
    figure, axes = new_figure(_SIZE, (0.11, 0.13, 0.86, 0.78), title, xlabel, 'probability density')
    low, high = float(np.min(values)), float(np.max(values))
    bins = np.linspace(low, high if high > low else low + 1.0, 81).tolist()
    for part, label, colour, hatch in (
        (values[genuine], 'genuine: one person', COLOURS[3], None),
        (values[~genuine], 'impostor: two people', COLOURS[6], '//'),
    ):
        looks: Any = {'color': colour, 'hatch': hatch, 'edgecolor': 'white', 'linewidth': 0.2}
        if len(part):
            axes.hist(part, bins, density=True, alpha=0.6, label=label, **looks)
    if threshold is not None:
        axes.axvline(threshold, color='black', linestyle='--', label=f'threshold {threshold:.4g}')
    axes.set_axisbelow(True)
    axes.legend()
    return figure
