"""Augmentation of training images, in TensorFlow, as a function of (seed, step).

The numbers are drawn for the global batch, and every sum is one of integers: a worker's pixels are
those that one worker would compute, to the last bit. Each kind takes bytes and gives bytes.
"""

from __future__ import annotations

import re
from typing import Callable, NamedTuple, Tuple

import numpy as np

from gitloss.backend import Tensor, tf
from gitloss.errors import check

Augmentation = Tuple[Tuple[str, float], ...]  # (kind, amount), in the order of application


def _flip(images: Tensor, amount: float, draws: Tensor) -> Tensor:
    return tf.where(draws[0] < 0.5, images[:, :, ::-1], images)


def _crop(images: Tensor, amount: float, draws: Tensor) -> Tensor:
    """The window of the original size at one of (2 amount + 1)^2 places in the image, which is
    padded with its edge pixels: the pixel at p of an axis is that at p + shift, or at the edge.
    """
    _, height, width, _ = images.shape.as_list()
    check(
        amount < min(height, width),
        '--augment',
        f'a crop of less than {min(height, width)} pixels for images of {height}x{width}',
        f'crop:{amount:g}',
    )
    shifts = tf.cast(tf.floor(draws * (2 * amount + 1)), tf.int32) - int(amount)
    for axis, size in ((1, height), (2, width)):
        places = tf.range(size)[None, :] + shifts[axis - 1][:, None]
        places = tf.clip_by_value(places, 0, size - 1)
        images = tf.gather(images, places, batch_dims=1, axis=axis)
    return images


def _around_zero(draws: Tensor, amount: float) -> Tensor:
    """Numbers from -amount to amount: [n, 1, 1, 1]."""
    return (2.0 * draws[0][:, None, None, None] - 1.0) * amount


def _resampled(images: Tensor, matrices: np.ndarray, draws: Tensor) -> Tensor:
    """The pixel at p, counted from the center of the image, is that at one of `matrices` times p,
    drawn for each image; interpolated between four pixels, or at the edge.

    In integers: places in 2^-13 of a pixel, of which the weights take 8 bits. With products of
    floats, a processor's vectors and their remainder could round differently.

    Args:
      matrices: float [k, 2, 2], with entries up to 4.
    """
    _, height, width, channels = images.shape.as_list()
    table = tf.constant(np.round(matrices * 4096), tf.int32)
    chosen = tf.cast(tf.floor(draws[0] * len(matrices)), tf.int32)
    # Twice the place from the center, a whole number: [2, height * width].
    grid = np.array(np.mgrid[:height, :width]).reshape(2, -1)
    grid = tf.constant(2 * grid - [[height - 1], [width - 1]], tf.int32)
    moved = tf.reduce_sum(tf.gather(table, chosen)[..., None] * grid, 2)  # [n, 2, height * width]
    low, parts = [], []
    for axis, size in enumerate((height, width)):
        place = moved[:, axis] + 4096 * (size - 1)
        place = tf.clip_by_value(place, 0, 8192 * (size - 1))
        low.append(place // 8192)
        parts.append((place % 8192) // 32)
    pixels = tf.cast(tf.reshape(images, [-1, height * width, channels]), tf.int32)
    total: Tensor = 1 << 15  # so that the shift rounds
    for down in (0, 1):
        for right in (0, 1):
            rows = tf.minimum(low[0] + down, height - 1)
            columns = tf.minimum(low[1] + right, width - 1)
            weight = (parts[0] if down else 256 - parts[0]) * (
                parts[1] if right else 256 - parts[1]
            )
            corner = tf.gather(pixels, rows * width + columns, batch_dims=1, axis=1)
            total += weight[..., None] * corner
    return tf.reshape(tf.cast(total // (1 << 16), tf.uint8), [-1, height, width, channels])


def _steps(amount: float) -> np.ndarray:
    """257 numbers from -amount to amount, the middle one 0."""
    return np.linspace(-amount, amount, 257)


def _rotate(images: Tensor, amount: float, draws: Tensor) -> Tensor:
    """Turns an image around its center by up to `amount` degrees."""
    angles = np.radians(_steps(amount))
    cos, sin = np.cos(angles), np.sin(angles)
    return _resampled(images, np.array([[cos, sin], [-sin, cos]]).transpose(2, 0, 1), draws)


def _zoom(images: Tensor, amount: float, draws: Tensor) -> Tensor:
    """Makes what an image shows 1 - amount to 1 + amount times as large."""
    return _resampled(images, np.eye(2) / (1.0 + _steps(amount))[:, None, None], draws)


def _bytes(pixels: Tensor) -> Tensor:
    """The nearest byte: the cast cuts off."""
    return tf.cast(tf.clip_by_value(pixels + 0.5, 0.0, 255.0), tf.uint8)


def _brightness(images: Tensor, amount: float, draws: Tensor) -> Tensor:
    """Adds up to amount * 255 to all pixels of an image, or subtracts it."""
    return _bytes(tf.cast(images, tf.float32) + 255.0 * _around_zero(draws, amount))


def _contrast(images: Tensor, amount: float, draws: Tensor) -> Tensor:
    """Multiplies the distance to the mean of the channel by 1 - amount to 1 + amount."""
    _, height, width, channels = images.shape.as_list()
    pixels = tf.cast(images, tf.float32)
    # Columns first, which are whole numbers below 2^24; their sum may exceed int32.
    columns = tf.reduce_sum(tf.reshape(pixels, [-1, height, width * channels]), 1)
    columns = tf.cast(tf.reshape(columns, [-1, 1, width, channels]), tf.int64)
    mean = tf.cast(tf.reduce_sum(columns, 2, keepdims=True), tf.float32) / float(height * width)
    factor = 1.0 + _around_zero(draws, amount)
    return _bytes((pixels - mean) * factor + mean)


class _Kind(NamedTuple):
    """A kind of augmentation.

    apply: (images, amount, numbers in [0, 1) [2, n]) -> images.
    default: the amount if none is given. If it is whole, all amounts are.
    high: the largest amount; 0: it has none.
    """

    apply: Callable[[Tensor, float, Tensor], Tensor]
    default: float = 0
    high: float = 0

    def accepts(self, amount: str) -> bool:
        pattern = '[0-9]+' if isinstance(self.default, int) else r'[0-9]*\.?[0-9]+'
        return bool(re.fullmatch(pattern, amount)) and 0 < float(amount) <= self.high


# The draws of a kind are those of its place in this table: a new one goes to the end.
_KINDS = {
    'flip': _Kind(_flip),
    'crop': _Kind(_crop, 8, 1024),
    'brightness': _Kind(_brightness, 0.2, 1),
    'contrast': _Kind(_contrast, 0.2, 1),
    'rotate': _Kind(_rotate, 15.0, 180),
    'zoom': _Kind(_zoom, 0.1, 0.75),
}


def parse(text: str) -> Augmentation:
    """The augmentation that a value of --augment describes: flip, crop[:pixels],
    brightness[:range], contrast[:range], rotate[:degrees], zoom[:range], separated by commas; '' is none.

    Raises:
      ValueError: an entry is none of these, its amount is out of range, or a kind occurs twice.
    """
    found: dict[str, float] = {}
    for entry in text.split(',') if text else ():
        name, colon, amount = entry.partition(':')
        kind = _KINDS.get(name)
        if kind is None or (colon and not kind.accepts(amount)):
            raise ValueError(
                '--augment: expected flip, crop[:1 to 1024 pixels], brightness[:up to 1], '
                'contrast[:up to 1], rotate[:up to 180 degrees] or zoom[:up to 0.75], separated by '
                f'commas. Received: {entry!r}'
            )
        check(name not in found, '--augment', 'each kind once', f'{name} twice')
        found[name] = float(amount) if colon else kind.default
    return tuple(found.items())


def augmented(
    images: Tensor, augmentation: Augmentation, seed: int, step: Tensor, rows: slice, batch: int
) -> Tensor:
    """The images of a step, augmented.

    Args:
      images: uint8 [n, height, width, channels], this worker's part, with a static shape.
      augmentation: see `parse`.
      seed: of all numbers, together with `step`.
      step: int64 scalar tensor.
      rows: the rows of the global batch that the images are.
      batch: samples in the global batch.

    Raises:
      ValueError: the images are too small for the crop.
    """
    seeds = tf.stack([tf.constant(seed, tf.int64), step])
    draws = tf.random.stateless_uniform([2 * len(_KINDS), batch], seeds)[:, rows]
    for name, amount in augmentation:
        first = 2 * list(_KINDS).index(name)
        images = _KINDS[name].apply(images, amount, draws[first : first + 2])
    return images
