"""A list of callbacks, run hook by hook in its order."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping

import numpy as np

from callbacks.base import Callback, RunHandle, as_callback
from gitloss.errors import HookError, describe, log
from gitloss.metrics import declaration

_PLAIN = (int, float, str, list, dict, type(None))  # what history.jsonl and the checkpoints hold


def kind(callback: Callback) -> str:
    """The name its state is kept under and its failures are reported as."""
    return getattr(callback, 'wrapped_kind', type(callback).__name__)


def _call(callback: Callback, hook: str, *args: Any) -> Any:
    """Calls one hook. NumPy scalars it put into the logs become Python numbers, which JSON holds.

    Raises:
      HookError: for errors that nothing raises on purpose. TensorFlow's own pass: the trainer
        reports them.
    """
    try:
        result = getattr(callback, hook)(*args)
    except (ValueError, OSError, RuntimeError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - one line for whatever a user's code raises
        if type(error).__module__.startswith('tensorflow.'):
            raise
        raise HookError(f'{kind(callback)}.{hook}: {describe(error)}') from error
    logs = args[-1] if args and isinstance(args[-1], dict) else {}
    for name, value in logs.items():
        if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
            logs[name] = value = value.item()
        if hook in ('on_epoch_end', 'on_train_end') and not isinstance(value, _PLAIN):
            del logs[name]  # at the end of a run the callbacks after this one write the rest
            raise HookError(
                f'{kind(callback)}.{hook}: expected numbers or text in the logs. '
                f'Received: {name}, of type {type(value).__name__}'
            )
    return result


class CallbackList:
    """Runs hooks in the order of the list. Objects of `tf.keras.callbacks` may stand in it too.

    A failing hook ends the training, with two exceptions: in `on_train_end` and `close` every
    callback gets its turn, and the failures are kept for the exit status.

    Attributes:
      callbacks: those that this worker has.
      failures: callbacks that failed while finishing, a line each.
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
        """Collects the declared metrics in the handle, then builds one callback after the other.

        Raises:
          ValueError: a callback declares something else than metrics.
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
        """What the `session.run` of `step` fetches: {name: tensor} of the callbacks and `own`.

        Raises:
          ValueError: two of them use one name.
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
        """Calls one hook of all callbacks; the first failure ends it."""
        for callback in self.callbacks:
            _call(callback, hook, *args)

    def _run_all(self, hook: str, callbacks: Iterable[Callback], *args: Any) -> None:
        for callback in callbacks:
            try:
                _call(callback, hook, *args)
            except Exception as error:  # noqa: BLE001 - every finalizer gets its turn
                named = isinstance(error, HookError)
                self.failures.append(str(error) if named else f'{kind(callback)}.{hook}: {error}')
                log.error(self.failures[-1])

    def end(self, logs: dict[str, Any]) -> None:
        self._run_all('on_train_end', self.callbacks, logs)

    def close(self) -> None:
        self._run_all('close', self._built)
        self._built = []

    def _named(self) -> Iterator[tuple[str, Callback]]:
        names = [kind(callback) for callback in self.callbacks]
        for i, name in enumerate(names):
            yield f'{name}{names[:i].count(name) or ""}', self.callbacks[i]

    def state(self) -> dict[str, Any]:
        """{name: state} of the callbacks that have one."""
        states = ((name, _call(callback, 'state')) for name, callback in self._named())
        return {name: state for name, state in states if state is not None}

    def load_state(self, states: Mapping[str, Any]) -> None:
        """Gives each callback the state it saved.

        Raises:
          ValueError: a callback refuses its state.
        """
        for name, callback in self._named():
            if name in states:
                try:
                    callback.load_state(states[name])
                except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
                    raise ValueError(
                        f'expected the state that {name} saved. '
                        f'Received: one that gives {type(error).__name__}: {error}'
                    )
