"""What callbacks without a trainer ask: a handle with a table of centers, which sweeps points."""

import numpy as np

from callbacks.base import RunHandle
from gitloss.metrics import declaration


class FakeHandle(RunHandle):
    """Sweeps Points; predictions equal the labels except for the indices in `wrong`."""

    num_classes, batch_size, steps, every = 3, 4, 10, 5
    options = {'embedding_dim': 2, 'similarity': 'euclidean'}
    metrics = declaration.by_name(
        [declaration.accuracy('valid'), declaration.loss('train'), declaration.loss('valid')]
    )

    def __init__(self, run_dir='', wrong=()):
        self.run_dir, self.wrong, self.table = str(run_dir), wrong, np.full((3, 2), 7.0)

    step = 0

    def centers_moved(self):
        return 2 / 3

    def center_rows(self, classes):
        return self.table[classes]

    def set_centers(self, classes, rows):
        self.table[classes] = rows

    def sweep(self, split, with_losses=False, with_predictions=True):
        for start in range(0, len(split.labels), 4):
            labels = split.labels[start : start + 4]
            predictions = np.array(
                [label if start + i not in self.wrong else -1 for i, label in enumerate(labels)]
            )
            yield (
                split.read(np.arange(start, start + len(labels))),
                predictions if with_predictions else predictions[:0],
                labels,
                {'loss': float(start)} if with_losses else {},
            )

    def throughput(self):
        return {'images_per_sec': 100.0, 'sec_per_step': 0.04}
