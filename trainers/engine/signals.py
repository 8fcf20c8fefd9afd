"""SIGTERM and SIGINT: noted while the training runs, obeyed by the trainer between two steps."""

from __future__ import annotations

import signal
import threading

from gitloss.errors import log


class Signals:
    """A context in which the first SIGTERM or SIGINT is kept in `received`; a second one ends the
    process at once.
    """

    def __init__(self):
        self.received = 0
        self._handlers = {}

    def _note(self, signum, frame):
        self.received = signum
        for other in self._handlers:
            signal.signal(other, signal.SIG_DFL)
        try:
            log.warning(
                '%s: saving after this step; once more ends the process at once',
                signal.Signals(signum).name,
            )
        except (
            RuntimeError,
            OSError,
        ):  # it came in the middle of a write to the same stream; the terminal is gone
            pass

    def __enter__(self):
        if (
            threading.current_thread() is threading.main_thread()
        ):  # elsewhere Python allows no handlers
            self._handlers = {
                signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)
            }
            for signum in self._handlers:
                signal.signal(signum, self._note)

    def __exit__(self, *_):
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
