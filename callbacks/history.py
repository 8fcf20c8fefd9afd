"""history.jsonl, one object per measurement, and results.json, the outcome of the run."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Mapping

from callbacks.base import Callback
from gitloss.errors import log
from gitloss.files import write_atomically
from gitloss.metrics import declaration


class History(Callback):
    """Writes `history.jsonl` and `results.json` into the run's folder.

    Args:
      facts: entries of results.json beside the metrics: options, versions ...
      best: name of the declared metric that chooses the best measurement.
      started: `time.monotonic()` when the program began.

    Attributes:
      rows: the logs of all measurements so far.
    """

    chief_only = True

    def __init__(
        self,
        facts: Mapping[str, Any] | None = None,
        best: str = 'valid_acc',
        started: float | None = None,
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._facts, self._best = facts or {}, best
        self._started = time.monotonic() if started is None else started
        self._before = 0.0  # seconds of the processes that this one continues

    def _row(self, logs):
        """Logs in the order of the file: step, metrics with a label, then the rest by name."""
        labelled = [name for name, metric in self.handle.metrics.items() if metric.label]
        first = [name for name in ('step', *labelled) if name in logs]
        return {name: logs[name] for name in first + sorted(set(logs) - set(first))}

    def _seconds(self):
        return self._before + time.monotonic() - self._started

    def _write(self):
        """Writes the whole file: after a resume the rows up to the checkpoint, and after a full
        disk the rows it cost.
        """
        try:
            write_atomically(
                os.path.join(self.handle.run_dir, 'history.jsonl'),
                ''.join(json.dumps(row) + '\n' for row in self.rows),
            )
        except OSError as error:
            log.warning('no history: %s; the next measurement tries again', error)

    def on_train_begin(self, logs: Any = None) -> None:
        self._write()

    def on_rewind(self, step: int) -> None:
        self._write()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.rows.append(self._row(logs))
        self._write()

    def on_train_end(self, logs: Any = None) -> None:
        metric = self.handle.metrics.get(self._best)
        place = None
        if metric is not None:
            place = declaration.best(self.rows, metric.name, bool(metric.higher_is_better))
        results = {
            **self._facts,
            'final': self._row(logs),
            'best': None if place is None else self.rows[place],
            'best_by': None if place is None else self._best,
            'throughput': self.handle.throughput(),
            'seconds': {'total': self._seconds()},
        }
        write_atomically(
            os.path.join(self.handle.run_dir, 'results.json'), json.dumps(results, indent=2) + '\n'
        )

    def state(self) -> Any:
        return {'rows': list(self.rows), 'seconds': self._seconds()}

    def load_state(self, state: Any) -> None:
        self.rows = [dict(row) for row in state['rows']]
        # A rollback gives back steps, not the time they took.
        self._before = max(float(state['seconds']), self._seconds())
        self._started = time.monotonic()
