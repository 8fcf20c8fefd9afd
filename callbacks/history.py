"""history.jsonl, one JSON object per measurement, and results.json, the results of the run."""

from __future__ import annotations

import json
import math
import time
from typing import Any, Mapping

from callbacks.base import Callback
from gitloss.errors import check, log
from gitloss.metrics import declaration


class History(Callback):
    """Writes `history.jsonl` and `results.json` into the run's folder.

    Args:
      facts: further entries of results.json: options, versions ...
      best: name of the declared metric that chooses the best measurement.
      started: `time.monotonic()` at the start of the program.

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

    def _row(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Logs in the order of the file: step, metrics with a label, all others by name."""
        labelled = [name for name, metric in self.handle.metrics.items() if metric.label]
        return {name: logs[name] for name in ['step', *labelled, *sorted(logs)] if name in logs}

    def _write(self) -> None:
        """Writes all rows: a resume drops those after the checkpoint, and a full disk may have lost
        some.
        """
        try:
            lines = ''.join(json.dumps(row) + '\n' for row in self.rows)
            self.handle.write('history.jsonl', lines)
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
        place = (
            declaration.best(self.rows, metric.name, metric.higher_is_better) if metric else None
        )
        results = {
            **self._facts,
            'final': self._row(logs),
            'best': None if place is None else self.rows[place],
            'best_by': None if place is None else self._best,
            'throughput': self.handle.throughput(),
            'seconds': {'total': time.monotonic() - self._started},
        }
        self.handle.write('results.json', json.dumps(results, indent=2) + '\n')

    def state(self) -> Any:
        return {'rows': list(self.rows), 'seconds': time.monotonic() - self._started}

    def load_state(self, state: Any) -> None:
        self.rows = [dict(row) for row in state['rows']]
        check(0 <= state['seconds'] < math.inf, 'seconds', 'a time', state['seconds'])
        # The time of the earlier processes of a resumed run; a rollback does not reset it.
        self._started = min(self._started, time.monotonic() - float(state['seconds']))
