"""history.jsonl, one object per measurement, and results.json, what the run came to."""

from __future__ import annotations

import json
import os
import time

from callbacks.base import Callback
from gitloss.errors import log
from gitloss.files import write_atomically

_COLUMNS = (
    'step',
    'train_loss',
    'train_acc',
    'valid_loss',
    'valid_acc',
    'inter_cls_dist',
    'intra_cls_dist',
    'images_per_sec',
    'seconds',
)


class History(Callback):
    """Writes `history.jsonl` and `results.json` into the run directory.

    Args:
      facts: what results.json says beside the metrics: options, versions ...
      best: the metric that names the best measurement (larger is better).
      started: `time.monotonic()` when the program began.
    """

    chief_only = True

    def __init__(self, facts=None, best='valid_acc', started=None):
        self.rows = []
        self._facts, self._best = facts or {}, best
        self._started = time.monotonic() if started is None else started
        self._before = 0.0  # seconds of the processes that this one continues

    def _row(self, logs):
        ordered = [name for name in _COLUMNS if name in logs] + sorted(set(logs) - set(_COLUMNS))
        return {name: logs[name] for name in ordered}

    def _seconds(self):
        return self._before + time.monotonic() - self._started

    def _write(self):
        """The whole file again: after a resume it holds the rows up to the checkpoint, and what a
        full disk cost comes back.
        """
        try:
            write_atomically(
                os.path.join(self.handle.run_dir, 'history.jsonl'),
                ''.join(json.dumps(row) + '\n' for row in self.rows),
            )
        except OSError as error:
            log.warning('no history: %s; the next measurement tries again', error)

    def on_train_begin(self, logs=None):
        self._write()

    def on_rewind(self, step):
        self._write()

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append(self._row(logs))
        self._write()

    def on_train_end(self, logs=None):
        measured = [row for row in self.rows if self._best in row]
        best = max(measured, key=lambda row: row[self._best]) if measured else None
        results = dict(
            self._facts,
            final=self._row(logs),
            best=best,
            best_by=self._best if best else None,
            throughput=self.handle.throughput(),
            seconds={'total': self._seconds()},
        )
        write_atomically(
            os.path.join(self.handle.run_dir, 'results.json'), json.dumps(results, indent=2) + '\n'
        )

    def state(self):
        return {'rows': list(self.rows), 'seconds': self._seconds()}

    def load_state(self, state):
        self.rows = [dict(row) for row in state['rows']]
        self._before = max(
            float(state['seconds']), self._seconds()
        )  # a rollback gives back steps, not the time they took
        self._started = time.monotonic()
