"""What is known of a data set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Preprocessing(NamedTuple):
    """Input of the network = pixels / divisor - mean.

    mean: float32 [height, width, channels], or one number for all pixels; None is zero. In a
    checkpoint it is the weight `preprocess/mean_image`.
    """

    divisor: float = 255.0
    mean: np.ndarray | float | None = None


class DataSpec(NamedTuple):
    """All that a graph needs to know of a data set. image_shape: (height, width, channels)."""

    name: str
    image_shape: tuple[int, ...]
    num_classes: int
    preprocessing: Preprocessing = Preprocessing()
