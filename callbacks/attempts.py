"""Optional work of callbacks, whose errors must not end a run."""

from __future__ import annotations

from typing import Any, Callable

from callbacks.base import Callback
from gitloss.errors import FolderLost, log


class Attempts:
    """Calls functions and logs their errors as warnings, one per kind of work.

    FolderLost is raised: it ends the run.

    Args:
      callback: does the work.
      warning: format of the warning, for the kind, the step and the error.
    """

    def __init__(self, callback: Callback, warning: str) -> None:
        self._callback, self._warning = callback, warning
        self._warned: set[str] = set()

    def __call__(self, kind: str, function: Callable[..., None], *args: Any) -> None:
        try:
            function(*args)
        except FolderLost:
            raise
        except Exception as error:  # noqa: BLE001 - no error here is worth ending a run
            if kind not in self._warned:
                log.warning(self._warning, kind, self._callback.handle.step, error)
            self._warned.add(kind)
