"""SIGTERM and SIGINT: noted while the training runs, obeyed by the trainer between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any

from gitloss.errors import log


class Signals:
    """A context that keeps the first SIGTERM or SIGINT; a second one ends the process at once.

    Attributes:
      received: the number of the first signal; 0: none has come.
    """

    def __init__(self) -> None:
        self.received = 0
        self._handlers: dict[int, Any] = {}

    def _note(self, signum: int, frame: Any) -> None:
        self.received = signum
        for other in self._handlers:
            signal.signal(other, signal.SIG_DFL)
        # RuntimeError: it came in the middle of a write to the same stream. OSError: the terminal
        # is gone.
        with contextlib.suppress(RuntimeError, OSError):
            text = '%s: saving after this step; once more ends the process at once'
            log.warning(text, signal.Signals(signum).name)

    def __enter__(self) -> Signals:
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._handlers[signum] = signal.getsignal(signum)
            for number in self._handlers:
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
