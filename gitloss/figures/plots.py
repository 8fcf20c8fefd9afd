"""All pictures as functions from arrays to matplotlib figures; no TensorFlow, no display."""

from gitloss.figures.canvas import COLOURS, gif_bytes, png_bytes
from gitloss.figures.confusion import MOST_CLASSES, confusion
from gitloss.figures.curves import curves, distances
from gitloss.figures.scatter import extent, plane, principal_axes, scatter

__all__ = [
    'COLOURS',
    'MOST_CLASSES',
    'confusion',
    'curves',
    'distances',
    'extent',
    'gif_bytes',
    'plane',
    'png_bytes',
    'principal_axes',
    'scatter',
]
