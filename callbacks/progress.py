"""The progress bar, and the lines a person reads."""

from __future__ import annotations

import contextlib
import logging
import os
import sys

from tqdm import tqdm

from callbacks.base import Callback
from gitloss.errors import log


class ConsoleHandler(logging.Handler):
    """Prints log lines to stderr without tearing a progress bar."""

    def emit(self, record):
        with contextlib.suppress(
            OSError
        ):  # a terminal that was closed, a full disk: no line is worth the run
            tqdm.write(self.format(record), file=sys.stderr)
            # before Python 3.9 lines to a file or a pipe would wait for 8 KiB of them
            sys.stderr.flush()


class Progress(Callback):
    """A tqdm bar with time left and images/s on a terminal, plain lines elsewhere, and one line per
    measurement.

    Args:
      log_every: steps between two plain lines where stderr is no terminal.
      log_file: name of a file in the run directory that gets all lines, with the time; None for
        none.
      header: lines to begin with.
    """

    def __init__(self, log_every=100, log_file=None, header=()):
        self._log_every, self._log_file, self._header = log_every, log_file, header
        self.intervals = {'--log_every': log_every}
        self._bar = None
        self._file = None

    def on_train_begin(self, logs=None):
        if self._log_file:
            self._file = logging.FileHandler(
                os.path.join(self.handle.run_dir, self._log_file), encoding='utf-8'
            )
            self._file.setFormatter(
                logging.Formatter('%(asctime)s %(message)s', '%Y-%m-%d %H:%M:%S')
            )
            log.addHandler(self._file)
        for line in self._header:
            log.info('%s', line)
        self._bar = tqdm(
            total=self.handle.steps,
            initial=self.handle.step,
            unit='step',
            disable=not sys.stderr.isatty(),
            file=sys.stderr,
            dynamic_ncols=True,
            smoothing=0.1,
        )

    def on_rewind(self, step):
        self._bar.n = step
        self._bar.refresh()

    def on_train_batch_end(self, batch, logs=None):
        self._bar.update(batch - self._bar.n)
        if self._bar.disable:
            if self.handle.passed(self._log_every):
                log.info(
                    'step %d/%d  loss %.4f  accuracy %.3f  %.0f images/s, %s left',
                    batch,
                    self.handle.steps,
                    logs['loss'],
                    logs['accuracy'],
                    logs['images_per_sec'],
                    tqdm.format_interval(
                        max(self.handle.steps - batch, 0)
                        * self.handle.batch_size
                        / logs['images_per_sec']
                    ),
                )
        elif self.handle.passed(10):  # the bar draws itself; only its tail is made here
            self._bar.set_postfix_str(
                'loss {:.4f}, {:.0f} images/s'.format(logs['loss'], logs['images_per_sec']),
                refresh=False,
            )

    def on_epoch_end(self, epoch, logs=None):
        parts = [
            'step %d/%d' % (logs['step'], self.handle.steps),
            'train loss {:.4f} acc {:.4f}'.format(logs['train_loss'], logs['train_acc']),
        ]
        if 'valid_acc' in logs:
            parts.append(
                'valid loss {:.4f} acc {:.4f}'.format(logs['valid_loss'], logs['valid_acc'])
            )
        if 'inter_cls_dist' in logs:
            parts.append(
                'inter {:.3f} intra {:.3f}'.format(logs['inter_cls_dist'], logs['intra_cls_dist'])
            )
        log.info('%s', '  '.join(parts + ['{:.0f} images/s'.format(logs['images_per_sec'])]))

    def on_train_end(self, logs=None):
        if 'test_acc' in logs:
            log.info(
                'test accuracy %.4f on %s images',
                logs['test_acc'],
                '{:,}'.format(logs['test_images']),
            )
        log.info('the run is in %s', self.handle.run_dir)

    def close(self):
        if self._bar is not None:
            self._bar.close()
        if self._file is not None:
            log.removeHandler(self._file)
            self._file.close()
