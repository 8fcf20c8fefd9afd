"""history.jsonl, one object per measurement, and results.json, what the run came to."""
from __future__ import annotations

import json
import os
import time

from callbacks.base import Callback

_COLUMNS = ('step', 'train_loss', 'train_acc', 'valid_loss', 'valid_acc', 'inter_cls_dist', 'intra_cls_dist', 'images_per_sec',
            'seconds')


def write_json(path, value):
    """Writes JSON whole or not at all: a temporary file beside it, then a rename."""
    temporary = '%s.%d.tmp' % (path, os.getpid())
    with open(temporary, 'w', encoding='utf-8') as file:
        json.dump(value, file, indent=2, sort_keys=False)
        file.write('\n')
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


class History(Callback):
    """Writes `history.jsonl` and `results.json` into the run directory.

    Args:
      facts: what results.json says beside the metrics: options, versions ...
      best: the metric that names the best measurement (larger is better).
      started: `time.time()` when the program began.
    """

    def __init__(self, facts=None, best='valid_acc', started=None):
        self.rows = []
        self._facts, self._best = facts or {}, best
        self._started = time.time() if started is None else started

    def _row(self, logs):
        ordered = [name for name in _COLUMNS if name in logs] + sorted(set(logs) - set(_COLUMNS))
        return {name: logs[name] for name in ordered}

    def on_train_begin(self, logs=None):
        path = os.path.join(self.handle.run_dir, 'history.jsonl')
        temporary = path + '.tmp'
        with open(temporary, 'w', encoding='utf-8') as file:  # after a resume: the rows up to its checkpoint, none twice
            file.writelines(json.dumps(row) + '\n' for row in self.rows)
        os.replace(temporary, path)

    def on_epoch_end(self, epoch, logs=None):
        row = self._row(logs)
        self.rows.append(row)
        with open(os.path.join(self.handle.run_dir, 'history.jsonl'), 'a', encoding='utf-8') as file:
            file.write(json.dumps(row) + '\n')

    def on_train_end(self, logs=None):
        measured = [row for row in self.rows if self._best in row]
        best = max(measured, key=lambda row: row[self._best]) if measured else None
        write_json(os.path.join(self.handle.run_dir, 'results.json'),
                   dict(self._facts, final=self._row(logs), best=best, best_by=self._best if best else None,
                        throughput=self.handle.throughput(), seconds={'total': time.time() - self._started}))

    def state(self):
        return self.rows

    def load_state(self, state):
        self.rows = list(state)
