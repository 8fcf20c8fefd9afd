"""The progress bar and the log lines."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any, Sequence

from tqdm import tqdm

from callbacks.base import Callback
from gitloss import files
from gitloss.errors import log


class ConsoleHandler(logging.Handler):
    """Prints log lines to stderr above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        # A closed terminal or a full disk must not end the run.
        with contextlib.suppress(OSError):
            tqdm.write(self.format(record), file=sys.stderr)
            # Before Python 3.9, stderr is block-buffered if it is not a terminal.
            sys.stderr.flush()


class Progress(Callback):
    """Shows a tqdm bar with time left and images/s if stderr is a terminal, otherwise plain lines,
    and one line per measurement with the metrics that have a label.

    Args:
      log_every: steps between two plain lines.
      log_file: name of a file in the run's folder for all lines, with the time; None: no file.
      header: the first lines.
    """

    def __init__(
        self, log_every: int = 100, log_file: str | None = None, header: Sequence[str] = ()
    ) -> None:
        self._log_every, self._log_file, self._header = log_every, log_file, header
        self.intervals = {'--log_every': log_every}
        self._resources = contextlib.ExitStack()

    def on_train_begin(self, logs: Any = None) -> None:
        if self._log_file:
            path = os.path.join(self.handle.run_dir, self._log_file)
            file = logging.StreamHandler(self._resources.enter_context(files.append(path)))
            file.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%Y-%m-%d %H:%M:%S'))
            log.addHandler(file)
            self._resources.callback(log.removeHandler, file)
        for line in self._header:
            log.info('%s', line)
        self._bar = self._resources.enter_context(
            tqdm(
                total=self.handle.steps,
                initial=self.handle.step,
                unit='step',
                disable=not sys.stderr.isatty(),
                file=sys.stderr,
                dynamic_ncols=True,
                smoothing=0.1,
            )
        )

    def on_rewind(self, step: int) -> None:
        self._bar.n = step
        self._bar.refresh()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._bar.update(batch - self._bar.n)
        if self._bar.disable:
            if self.handle.passed(self._log_every):
                images_left = max(self.handle.steps - batch, 0) * self.handle.batch_size
                log.info(
                    'step %d/%d  loss %.4f  accuracy %.3f  %.0f images/s, %s left',
                    batch,
                    self.handle.steps,
                    logs['loss'],
                    logs['accuracy'],
                    logs['images_per_sec'],
                    tqdm.format_interval(images_left / logs['images_per_sec']),
                )
        else:  # tqdm redraws the bar; this sets its last part
            self._bar.set_postfix_str(
                f'loss {logs["loss"]:.4f}, {logs["images_per_sec"]:.0f} images/s', refresh=False
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        values = [
            f'{metric.label} {metric.text(logs[name])}'
            for name, metric in self.handle.metrics.items()
            if metric.label and name in logs
        ]
        log.info('%s', '  '.join([f'step {logs["step"]}/{self.handle.steps}', *values]))

    def on_train_end(self, logs: Any = None) -> None:
        for name, metric in self.handle.metrics.items():
            if metric.group == 'test' and metric.label and name in logs:
                log.info('%s %s', metric.full_title, metric.text(logs[name]))
        log.info('the run is in %s', self.handle.run_dir)

    def close(self) -> None:
        self._resources.close()
