"""Matplotlib figures as PNG files and as animated GIF files."""

from __future__ import annotations

import io
from typing import Any, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from gitloss.figures.plots import COLOURS

# Of a class's colour in the palette. Any less is taken for white, and white for it.
_OPACITIES = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.12)


def png_bytes(figure: Figure) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return buffer.getvalue()


def _palette():
    """One palette for all frames of all scatters: the colours of the classes, thinned towards white
    as transparent dots and edges are.

    With a palette per frame, colours change from frame to frame, and a class of few dots gets the
    colour of another one.
    """
    full = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in COLOURS]
    shades = [
        255 - round((255 - value) * opacity)
        for opacity in _OPACITIES
        for rgb in full
        for value in rgb
    ]
    image = Image.new('P', (1, 1))
    image.putpalette((shades + [255, 255, 255] * 256)[:768])
    return image


def gif_bytes(figures: Sequence[Figure], seconds_per_frame: float = 0.7) -> bytes:
    """The bytes of an endless GIF of figures of one size. The last frame stays thrice as long."""
    frames, palette = [], _palette()
    for figure in figures:
        figure.canvas.draw()
        canvas: Any = figure.canvas
        frame: Any = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
        frames.append(frame.quantize(palette=palette, dither=0))
    durations = [int(1000 * seconds_per_frame)] * (len(frames) - 1)
    durations.append(int(3000 * seconds_per_frame))
    buffer = io.BytesIO()
    frames[0].save(
        buffer, format='GIF', save_all=True, append_images=frames[1:], duration=durations, loop=0
    )
    return buffer.getvalue()
