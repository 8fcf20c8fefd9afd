"""What the formats are written from."""

from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np

from trainers.exporting.graph import Graph


class Content(NamedTuple):
    """The inference of a checkpoint, and images.

    graph: for any batch.
    fixed: for --export_batch images per call.
    calibration: () -> training images, uint8 [n, height, width, channels]; raises ValueError if
      they cannot be read.
    """

    graph: Graph
    fixed: Graph
    calibration: Callable[[], np.ndarray]
