"""Figures as the bytes of PNG and GIF files."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any, Sequence

from PIL import Image

from gitloss.figures.plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@functools.lru_cache(maxsize=1)  # a run quantizes a hundred frames with it
def _palette() -> Image.Image:
    """One palette for all frames: the class colours, and their lighter shades, which transparent
    dots and antialiased edges need.

    With a palette per frame, colours change between frames, and a class with few dots gets the
    colour of another class.
    """
    shades = [
        255 - round((255 - value) * opacity)
        # A lighter shade than the last would replace white.
        for opacity in (1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.12)
        for colour in COLOURS
        for value in bytes.fromhex(colour[1:])
    ]
    image = Image.new('P', (1, 1))
    image.putpalette((shades + [255, 255, 255] * 256)[:768])
    return image


def png_bytes(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
    return buffer.getvalue()


def gif_frame(figure: Any) -> Image.Image:
    """The Figure as a frame of an animation, one byte a pixel."""
    pixels, size = figure.canvas.print_to_buffer()
    image = Image.frombytes('RGBA', size, pixels).convert('RGB')
    return image.quantize(palette=_palette(), dither=Image.Dither.NONE)


def gif_bytes(frames: Sequence[Image.Image]) -> bytes:
    """Frames of one size as the bytes of an endless animated GIF: the last one lasts 2.1 s, the
    others 0.7 s.
    """
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format='GIF',
        save_all=True,
        append_images=frames[1:],
        duration=[700] * (len(frames) - 1) + [2100],
        loop=0,
    )
    return buffer.getvalue()
