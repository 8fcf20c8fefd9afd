"""Matplotlib figures from arrays. No TensorFlow, no display: figures are drawn by the Agg canvas
and returned or saved.
"""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from gitloss import metrics

# Ten colours that stay apart for colour-blind readers: Paul Tol's "muted" scheme and black; shapes
# double the code.
COLOURS = (
    '#332288',
    '#88ccee',
    '#44aa99',
    '#117733',
    '#999933',
    '#ddcc77',
    '#cc6677',
    '#882255',
    '#aa4499',
    '#000000',
)
MARKERS = ('o', 's', '^', 'D', 'v')
_PLANE_POINTS = 2000  # enough to find the principal axes
MOST_CLASSES = 1000  # of a confusion matrix: no picture can show more


def _figure(width, height, place):
    """(figure of that many inches, 100 pixels each, its axes at `place`: left, bottom, width,
    height as shares).
    """
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure, figure.add_axes(place)


def _curve_figure(xlabel, ylabel, title, place):
    figure, axes = _figure(7.2, 4.2, place)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_title(title, fontsize=12)
    return figure, axes


def extent(points, means):
    """Half-width of the square around the origin that holds all points and means, those with NaN
    left out, and a margin.
    """
    return 1.08 * float(
        np.fmax.reduce(np.abs(np.concatenate([np.ravel(points), np.ravel(means), [1e-6]])))
    )


def scatter(embeddings, labels, centers, title='', limit=None):
    """The first two dimensions of the embeddings, coloured by class, with the centers marked and
    numbered.

    Args:
      embeddings: float [n, dim], dim >= 2 (a single dimension is drawn along a line).
      labels: int [n].
      centers: float [classes, dim]; a row of NaN is left out.
      title: text above the plot.
      limit: half-width of the square plot; None fits it to the data.

    Returns:
      A matplotlib Figure of 720 x 640 pixels, the legend beside the plot.
    """
    figure, axes = _figure(7.2, 6.4, [0.07, 0.06, 0.79, 0.88])
    points, marks = (
        np.pad(np.asarray(a, np.float64), ((0, 0), (0, max(0, 2 - a.shape[1]))), 'constant')[:, :2]
        for a in (embeddings, centers)
    )
    classes, places = np.unique(labels, return_inverse=True)
    looks = len(COLOURS) * len(
        MARKERS
    )  # classes that look alike are drawn in one go: there may be thousands
    for place, label in enumerate(classes[:looks]):
        chosen = points[places % looks == place]
        axes.plot(
            chosen[:, 0],
            chosen[:, 1],
            linestyle='',
            marker=MARKERS[place // len(COLOURS)],
            markersize=3,
            alpha=0.55,
            markeredgewidth=0,
            color=COLOURS[place % len(COLOURS)],
            label=str(label),
        )
    axes.plot(
        marks[:, 0],
        marks[:, 1],
        linestyle='',
        marker='X',
        markersize=9,
        color='white',
        markeredgecolor='black',
        label='center',
    )
    halo = [
        withStroke(linewidth=3, foreground='white')
    ]  # the number stands among the dots of its class, which may be dark
    for label, mark in enumerate(marks):
        if np.all(np.isfinite(mark)) and len(marks) <= 50:
            axes.annotate(
                str(label),
                mark,
                xytext=(7, 5),
                textcoords='offset points',
                fontsize=13,
                path_effects=halo,
            )
    limit = extent(points, marks) if limit is None else limit
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    axes.set_aspect('equal')
    axes.grid(True, linewidth=0.4, alpha=0.5)
    axes.set_title(title, fontsize=12)
    if len(classes) <= 20:
        legend = axes.legend(
            loc='upper left',
            bbox_to_anchor=(1.0, 1.0),
            fontsize=10,
            frameon=False,
            handletextpad=0.1,
        )
        for line in (
            getattr(legend, 'legend_handles', None) or legend.legendHandles
        ):  # renamed in Matplotlib 3.7
            line.set_markersize(9)
            line.set_alpha(1)
    return figure


def curves(lines, title, ylabel, log_scale=False):
    """Lines over the training steps, the legend beside the plot: inside it would lie over a line.

    Args:
      lines: {label: (steps [n], values [n])}.
      title, ylabel: texts.
      log_scale: logarithmic y axis.

    Returns:
      A matplotlib Figure of 720 x 420 pixels.
    """
    figure, axes = _curve_figure('step', ylabel, title, [0.1, 0.13, 0.66, 0.77])
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
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f'{value:g}')
        )  # 0.2 and 0.5, not powers of ten
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


def distances(genuine, impostor, title='distances between validation samples'):
    """Histogram of the distances of pairs of one class (genuine) against those of two classes
    (impostor).

    Args:
      genuine, impostor: float [n], [k]; each is scaled to area 1.

    Returns:
      A matplotlib Figure of 720 x 420 pixels.
    """
    figure, axes = _curve_figure(
        'Euclidean distance', 'probability density', title, [0.11, 0.13, 0.86, 0.77]
    )
    edges = np.linspace(
        0.0,
        max(float(np.max(part)) if len(part) else 0.0 for part in (genuine, impostor)) or 1.0,
        81,
    )
    for part, label, colour, hatch in (
        (genuine, 'genuine: same class', COLOURS[3], None),
        (impostor, 'impostor: different classes', COLOURS[6], '//'),
    ):
        if len(part):
            axes.hist(
                part,
                edges,
                density=True,
                alpha=0.6,
                color=colour,
                hatch=hatch,
                edgecolor='white',
                linewidth=0.2,
                label=label,
            )
    axes.set_xlim(0.0, edges[-1])
    axes.grid(True, linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    axes.legend(fontsize=10)
    return figure


def principal_axes(points):
    """The plane of largest spread of points [n, dim], dim > 1: (origin [dim], axes [dim, 2]).

    The sign of an axis is chosen so that its largest entry is positive: pictures of one set do not
    flip.
    """
    origin = points.mean(axis=0)
    if points.shape[1] <= len(
        points
    ):  # by the covariance, 2000 x 512 in a tenth of the time of singular values
        axes = np.linalg.eigh((points - origin).T.dot(points - origin))[1][:, :-3:-1]
    else:
        axes = np.linalg.svd(points - origin, full_matrices=False)[2][:2].T
    return origin, axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])


def plane(points):
    """The projection on two dimensions that belongs to points [n, dim], as a function of rows [k,
    dim]; of dim 1 and 2 the rows stay.
    """
    if points.shape[1] <= 2:
        return lambda rows: rows
    origin, axes = principal_axes(
        points[metrics.spread(len(points), _PLANE_POINTS)].astype(np.float64)
    )
    return lambda rows: (rows - origin).dot(axes)


def _palette():
    """One palette for all frames of all scatters: the classes' colours, thinned towards white as
    transparent dots and edges are.

    Chosen frame by frame, colours change from frame to frame, and a class of few dots gets that of
    another one.
    """
    from PIL import Image

    full = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in COLOURS]
    opacities = (
        1.0,
        0.85,
        0.7,
        0.55,
        0.4,
        0.25,
        0.12,
    )  # any less is taken for white, and white for it
    shades = [
        255 - round((255 - value) * opacity)
        for opacity in opacities
        for rgb in full
        for value in rgb
    ]
    image = Image.new('P', (1, 1))
    image.putpalette((shades + [255, 255, 255] * 256)[:768])
    return image


def confusion(labels, predictions, num_classes):
    """Confusion matrix: rows are true classes, columns predicted ones, the shade is the share of
    the row.

    Shades grow with a power of 0.4, so that a share of one percent is seen. A single hue, light to
    dark, is safe for colour-blind readers.

    Args:
      labels: int [n] in [0, num_classes).
      predictions: int [n]; what lies outside [0, num_classes) counts in its row and has no column.
      num_classes: size of the matrix; counts are written into the cells up to 20, every class has
        its tick up to 50.

    Returns:
      A matplotlib Figure of 640 x 600 pixels, 900 x 860 for more than 20 classes.

    Raises:
      ValueError: more than 1000 classes, which no picture can show.
    """
    if num_classes > MOST_CLASSES:
        raise ValueError(
            'num_classes: expected at most %d in a confusion matrix. Received: %d'
            % (MOST_CLASSES, num_classes)
        )
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    known = (predictions >= 0) & (predictions < num_classes)
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (labels[known], predictions[known]), 1)
    shares = counts / np.maximum(np.bincount(labels, minlength=num_classes), 1)[:, None]
    few = num_classes <= 20
    width, height = (6.4, 6.0) if few else (9.0, 8.6)
    figure, axes = _figure(width, height, [0.1, 0.09, 0.78, 0.84])
    image = axes.imshow(
        shares, cmap='Blues', norm=PowerNorm(0.4, 0.0, 1.0), interpolation='nearest'
    )
    bar = figure.colorbar(
        image,
        cax=figure.add_axes([0.9, 0.09 + 0.84 * 0.04, 0.02, 0.84 * 0.92]),
        ticks=[0, 0.01, 0.1, 0.5, 1],
    )
    bar.ax.set_yticklabels(['0', '1%', '10%', '50%', '100%'], fontsize=9)
    if few:
        size = 11 if num_classes <= 10 else 7
        for row, column in zip(*np.nonzero(counts)):
            axes.text(
                column,
                row,
                str(counts[row, column]),
                ha='center',
                va='center',
                fontsize=size,
                color='white' if shares[row, column] > 0.25 else 'black',
            )
    if num_classes <= 50:
        axes.set_xticks(range(num_classes))
        axes.set_yticks(range(num_classes))
        axes.tick_params(labelsize=11 if num_classes <= 10 else 9 if few else 7)
        if not few:
            axes.tick_params(axis='x', rotation=90)
    axes.set_xlabel('predicted class')
    axes.set_ylabel('true class')
    axes.set_title(
        '%d of %d right (%.2f%%)'
        % (
            np.sum(labels == predictions),
            len(labels),
            100.0 * np.mean(labels == predictions) if len(labels) else 0.0,
        ),
        fontsize=12,
    )
    return figure


def png_bytes(figure):
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return buffer.getvalue()


def gif_bytes(figures, seconds_per_frame=0.7):
    """Figures of one size as the bytes of an endless animated GIF. The last frame stays three times
    as long.
    """
    from PIL import Image

    frames, palette = [], _palette()
    for figure in figures:
        figure.canvas.draw()
        frames.append(
            Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]).quantize(
                palette=palette, dither=0
            )
        )
    durations = [int(1000 * seconds_per_frame)] * (len(frames) - 1) + [
        int(3000 * seconds_per_frame)
    ]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, format='GIF', save_all=True, append_images=frames[1:], duration=durations, loop=0
    )
    return buffer.getvalue()
