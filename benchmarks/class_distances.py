"""Memory and time of a measurement of the training set with many classes, without a network.

    python benchmarks/class_distances.py [--classes=1000000] [--dim=512] [--samples=3]

Measures class means and distances of made-up embeddings, `--samples` of each class, in batches of
256: with a table of all classes, in the order of the classes, and estimated from the classes of a
hundredth of the samples. Each way runs in a separate process; memory is the peak above what the
process held before. Two sweeps are made where the embeddings are not kept.
"""

import argparse
import json
import sys
import time

import numpy as np
from measuring import memory_mib, parser, run_case

from callbacks import class_distances
from callbacks.base import Handle
from gitloss.data import Source

WAYS = ('table', 'order', 'estimate')
_ROWS = 8192  # different embeddings


class MadeUp(Source):
    """Sample i is of the class i mod classes, and one of _ROWS vectors."""

    image_shape, parallel = (), False

    def __init__(self, classes: int, dim: int, samples: int) -> None:
        self.labels = np.arange(classes * samples, dtype=np.int32) % classes
        self._rows = np.random.RandomState(0).randn(_ROWS, dim).astype(np.float32)

    def read(self, indices: np.ndarray) -> np.ndarray:
        return self._rows[
            indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(51)
        ]


class Sweeper(Handle):
    """Sweeps what it reads."""

    def __init__(self, dim: int) -> None:
        self.options = {'embedding_dim': dim}

    def sweep(self, source, with_losses=False, with_predictions=True):
        for start in range(0, len(source), 256):
            chosen = np.arange(start, min(start + 256, len(source)))
            yield source.read(chosen), chosen[:0], source.labels[chosen], {}


def measure(way: str, classes: int, dim: int, samples: int) -> dict:
    source, handle = MadeUp(classes, dim, samples), Sweeper(dim)
    class_distances.TABLE_BYTES = sys.maxsize if way == 'table' else 0
    limit = len(source) // 100 if way == 'estimate' else 0
    before, start = memory_mib()[1], time.perf_counter()
    found, _ = class_distances.class_distances(handle, source, classes, limit, shown=200)
    return dict(found, seconds=time.perf_counter() - start, mib=memory_mib()[0] - before)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument('--classes', type=int, default=1000000)
    flags.add_argument('--dim', type=int, default=512)
    flags.add_argument('--samples', type=int, default=3)
    flags.add_argument('--way', choices=WAYS, help=argparse.SUPPRESS)
    given = flags.parse_args()
    size = given.classes, given.dim, given.samples
    if given.way:
        print(json.dumps(measure(given.way, *size)))
        return
    named = [f'--{name}={value}' for name, value in zip(('classes', 'dim', 'samples'), size)]
    for way in WAYS:
        result, error = run_case(__file__, f'--way={way}', *named)
        print(way, error or json.dumps(result))


if __name__ == '__main__':
    main()
