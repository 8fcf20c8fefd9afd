"""A list of callbacks, run hook by hook in its order."""

from __future__ import annotations

from typing import Any, Iterable, Mapping

import numpy as np

from callbacks.base import Callback, RunHandle, as_callback
from gitloss.errors import DamagedCheckpoint, FolderLost, HookError, describe, log
from gitloss.metrics import declaration

_PLAIN = (int, float, str, list, dict, type(None))  # types in history.jsonl and checkpoints


def kind(callback: Callback) -> str:
    """The name of a callback in checkpoints and error messages."""
    return getattr(callback, 'wrapped_kind', type(callback).__name__)


def _call(callback: Callback, hook: str, *args: Any) -> Any:
    """Calls one hook, and converts NumPy scalars in the logs to Python numbers, for JSON.

    Raises:
      HookError: for types of errors that indicate a bug in the hook. TensorFlow's errors are not
        converted: the trainer reports them.
    """
    try:
        result = getattr(callback, hook)(*args)
    except (ValueError, OSError, RuntimeError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - user code can raise anything
        if type(error).__module__.startswith('tensorflow.'):
            raise
        raise HookError(f'{kind(callback)}.{hook}: {describe(error)}') from error
    logs = args[-1] if args and isinstance(args[-1], dict) else {}
    for name, value in logs.items():
        if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
            logs[name] = value = value.item()
        if hook in ('on_epoch_end', 'on_train_end') and not isinstance(value, _PLAIN):
            del logs[name]  # so that later callbacks can write the rest
            raise HookError(
                f'{kind(callback)}.{hook}: expected numbers or text in the logs. '
                f'Received: {name}, of type {type(value).__name__}'
            )
    return result


class CallbackList:
    """Runs hooks in the order of the list, which may contain objects of `tf.keras.callbacks`.

    A failing hook ends the training. `on_train_end` and `close` are exceptions: they run for all
    callbacks, and their failures decide the exit status. FolderLost ends the training even there.

    Attributes:
      callbacks: the callbacks of this worker.
      failures: error messages of on_train_end and close, one line each.
    """

    def __init__(self, callbacks: Iterable[Any], is_chief: bool = True) -> None:
        self.callbacks = [
            callback
            for callback in map(as_callback, callbacks)
            if is_chief or not callback.chief_only
        ]
        self.failures: list[str] = []
        self._built: list[Callback] = []

    def build(self, handle: RunHandle) -> None:
        """Collects the declared metrics in the handle, then builds the callbacks in order.

        Raises:
          ValueError: the `metrics` of a callback are not declarations.
        """
        declared = list(handle.metrics.values())
        for callback in self.callbacks:
            try:
                declared += [metric for metric in callback.metrics if metric.name]
            except (TypeError, AttributeError):
                raise ValueError(
                    f'{kind(callback)}.metrics: expected a sequence of gitloss.metrics.Metric. '
                    f'Received: {callback.metrics!r}'
                )
        handle.metrics = declaration.by_name(declared)
        for callback in self.callbacks:
            callback.handle = handle
            self._built.append(callback)
            _call(callback, 'build')

    def fetches(self, step: int, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The fetches of the `session.run` of `step`: {name: tensor} of the callbacks and `own`.

        Raises:
          ValueError: a name is used twice.
        """
        wanted = dict(own or {})
        for callback in self.callbacks:
            extra = _call(callback, 'fetches', step)
            twice = sorted(name for name in extra if name in wanted or name == 'images_per_sec')
            if twice:
                raise ValueError(
                    'fetches: expected names that no other callback and no log of a step uses. '
                    f'Received: {", ".join(twice)} from {kind(callback)}'
                )
            wanted.update(extra)
        return wanted

    def run(self, hook: str, *args: Any) -> None:
        """Calls one hook of all callbacks; an error in one stops the sequence."""
        for callback in self.callbacks:
            _call(callback, hook, *args)

    def _run_all(self, hook: str, callbacks: Iterable[Callback], *args: Any) -> None:
        for callback in callbacks:
            try:
                _call(callback, hook, *args)
            except FolderLost:
                if hook != 'close':  # when there is nothing left to lose
                    raise
            except Exception as error:  # noqa: BLE001 - the other callbacks still run
                where = '' if isinstance(error, HookError) else f'{kind(callback)}.{hook}: '
                self.failures.append(f'{where}{error}')
                log.error(self.failures[-1])

    def end(self, logs: dict[str, Any]) -> None:
        """Calls on_train_end of all callbacks; errors go to `failures`."""
        self._run_all('on_train_end', self.callbacks, logs)

    def close(self) -> None:
        """Calls close of all callbacks that were built; errors go to `failures`."""
        self._run_all('close', self._built)
        self._built = []

    def _named(self) -> dict[str, Callback]:
        names = [kind(callback) for callback in self.callbacks]
        unique = (f'{name}{names[:i].count(name) or ""}' for i, name in enumerate(names))
        return dict(zip(unique, self.callbacks))

    def state(self) -> dict[str, Any]:
        """{name: state} of the callbacks that have one."""
        states = ((name, _call(callback, 'state')) for name, callback in self._named().items())
        return {name: state for name, state in states if state is not None}

    def load_state(self, states: Mapping[str, Any], path: str) -> None:
        """Restores the state of each callback, from the checkpoint at `path`.

        Raises:
          DamagedCheckpoint: a callback rejects its state.
        """
        for name, callback in self._named().items():
            if name in states:
                try:
                    callback.load_state(states[name])
                except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
                    raise DamagedCheckpoint(
                        f'{path}: expected the state that {name} saved. '
                        f'Received: one that gives {type(error).__name__}: {error}'
                    )
