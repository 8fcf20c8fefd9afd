"""SIGTERM, SIGINT and SIGHUP: recorded at any time, obeyed by the trainer between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any

from gitloss.errors import log


class Signals:
    """A context that records the first of these signals; a second one ends the process at once.

    Attributes:
      received: the number of the first signal; 0 if there is none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._handlers: dict[int, Any] = {}

    def _note(self, signum: int, frame: Any) -> None:
        self.received = signum
        for other in self._handlers:
            signal.signal(other, signal.SIG_DFL)
        # RuntimeError: the signal interrupts a write to the same stream. OSError: the terminal is
        # gone.
        with contextlib.suppress(RuntimeError, OSError):
            log.warning(
                '%s: saving after this step; once more ends the process at once',
                signal.Signals(signum).name,
            )

    def __enter__(self) -> Signals:
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGTERM, signal.SIGINT]
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
                numbers.append(signal.SIGHUP)  # the terminal or the ssh session is gone
            self._handlers = {signum: signal.getsignal(signum) for signum in numbers}
            for number in self._handlers:
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
