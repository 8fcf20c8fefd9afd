"""Unmodified objects of `tf.keras.callbacks` in the list of callbacks.

A Keras epoch, counted from 0, ends with a measurement; a Keras batch is a step within it. The
`model` of the callbacks is a substitute: `stop_training` ends the run, `optimizer.lr` is the
variable of the learning rate, and saving writes a checkpoint of this project. Keras's `get_value`
and `set_value` work in the finalized graph, because each hook runs with the run's session as the
default session.
"""

from __future__ import annotations

import copy
import json
import math
import os
from typing import Any

import numpy as np

from callbacks.base import Callback, Logs
from callbacks.keras_model import NUMBER, STATE, Model, refusal
from gitloss.backend import keras, tf


class KerasCallback(Callback):
    """Wraps one object of tf.keras.callbacks.

    Numbers that it adds to the logs of a measurement (`lr`) reach the callbacks after it. The
    counters and best values of Keras's own callbacks are restored exactly when a run is resumed.

    Args:
      wrapped: the object, also an attribute.

    Raises:
      ValueError: it is not a Keras callback, or it cannot work here; the message says why.
    """

    def __init__(self, wrapped: Any) -> None:
        if not isinstance(wrapped, keras.callbacks.Callback):
            raise ValueError(
                'callbacks: expected objects of callbacks.base.Callback or of '
                'keras.callbacks.Callback, keras being that of gitloss.backend. '
                f'Received: {type(wrapped).__name__!r} of {type(wrapped).__module__}'
            )
        self.wrapped, self.wrapped_kind = wrapped, 'keras.' + type(wrapped).__name__
        self._kinds = [
            cls.__name__
            for cls in type(wrapped).__mro__
            if cls.__module__.startswith(('tensorflow', 'tf_keras'))
        ]
        reason = refusal(wrapped, self._kinds)
        if reason:
            raise ValueError(
                'callbacks: expected callbacks that can work in a graph-mode run. '
                f'Received: {self.wrapped_kind}; {reason}'
            )
        self._state = {
            name: types for kind in self._kinds for name, types in STATE.get(kind, {}).items()
        }
        self._is_csv = 'CSVLogger' in self._kinds
        self.chief_only = self._is_csv or 'RemoteMonitor' in self._kinds
        self._saved: dict[str, Any] = {}
        is_monitor = getattr(wrapped, 'save_best_only', False) or not {
            'EarlyStopping',
            'ReduceLROnPlateau',
        }.isdisjoint(self._kinds)
        # What the first measurement must log.
        self._unseen = {wrapped.monitor} if is_monitor else set()

    def build(self) -> None:
        every = getattr(self.wrapped, 'save_freq', None)
        if 'ModelCheckpoint' in self._kinds and isinstance(every, int):
            # It counts steps, but images on TensorFlow 1.15.
            if hasattr(self.wrapped, '_samples_seen_since_last_saving'):
                every = -(-every // self.handle.batch_size)
            self.intervals = {f'save_freq of {self.wrapped_kind}': every}
        variable = self.handle.rate_variable
        # Keras's set_value uses these two attributes, and would create them in the finalized graph.
        if not hasattr(variable, '_assign_op'):
            variable._assign_placeholder = tf.placeholder(tf.float32, [])
            variable._assign_op = tf.assign(variable, variable._assign_placeholder)
        self._model = Model(self.wrapped, self.wrapped_kind, self.handle)
        self.wrapped.set_params(
            {
                'epochs': math.ceil(self.handle.steps / self.handle.every),
                'steps': self.handle.every,
                'verbose': 0,
                'batch_size': self.handle.batch_size,
                'samples': self.handle.every * self.handle.batch_size,
                'do_validation': True,
                'metrics': sorted(self._with_aliases(dict.fromkeys(self.handle.metrics, 0.0))),
            }
        )
        self.wrapped.set_model(self._model)

    def _call(self, hook: str, *args: Any) -> None:
        with self.handle.session.as_default():
            getattr(self.wrapped, hook)(*args)

    def on_train_begin(self, logs: Any = None) -> None:
        for variable in tf.global_variables():
            variable._keras_initialized = True  # otherwise Keras creates operations to check it
        # Before the hook, so that a CSVLogger appends; and after it, because other callbacks reset
        # their state in it.
        self._apply()
        self._call('on_train_begin', {})
        self._apply()
        # It stopped this run before, and its patience has not been increased since.
        if self._saved.get('stopped_epoch') and self.wrapped.wait >= self.wrapped.patience:
            self._model.stop_training = True

    def on_rewind(self, step: int) -> None:
        if self._is_csv:
            self.close()
            self.wrapped.writer = None
            self.on_train_begin()
        self._apply()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._call('on_epoch_begin', epoch - 1, {})

    def on_test_begin(self, logs: Any = None) -> None:
        """A measurement is a Keras test if it evaluates."""
        if self.handle.options['evaluate']:
            self._call('on_test_begin', {})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seen = self._with_aliases(logs)
        if self.handle.options['evaluate']:
            self._call('on_test_end', self._aliases(logs, 'valid'))
        if self._unseen - seen.keys():  # Keras only warns
            raise ValueError(
                f'{self.wrapped_kind}: expected monitor to be one of {", ".join(sorted(seen))}. '
                f'Received: {self.wrapped.monitor!r}'
            )
        self._unseen = set()
        if self._is_csv:  # the columns of the file are those of its first row
            seen = dict(dict.fromkeys(self.wrapped.keys or (), 'NA'), **seen)
        self._model.metrics_now = {
            name: value for name, value in logs.items() if type(value) in NUMBER
        }
        before = set(seen)
        self._call('on_epoch_end', epoch - 1, seen)
        self._model.metrics_now = {}
        logs.update(
            (name, value)
            for name, value in seen.items()
            if name not in before and isinstance(value, NUMBER + (np.generic,))
        )

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        # Of the current call, which runs several steps with a sunk loop.
        self._images = (batch - self.handle.step) * self.handle.batch_size
        self._call('on_train_batch_begin', (batch - 1) % self.handle.every, {'size': self._images})

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._call(
            'on_train_batch_end',
            (batch - 1) % self.handle.every,
            dict(logs, acc=logs['accuracy'], size=self._images),
        )

    def on_train_end(self, logs: Any = None) -> None:
        self._call('on_train_end', self._with_aliases(logs))

    def close(self) -> None:
        if self._is_csv and hasattr(self.wrapped, 'csv_file'):
            self.wrapped.csv_file.close()

    def _aliases(self, logs: Logs, group: str, prefix: str = '') -> dict[str, Any]:
        """The metrics of a data set under Keras's names: `acc` and `accuracy` for `train_acc`."""
        return {
            prefix + alias: logs[name]
            for name, metric in self.handle.metrics.items()
            if metric.group == group and metric.part and name in logs
            for alias in (metric.part, metric.title.replace(' ', '_'))
        }

    def _with_aliases(self, logs: Logs) -> dict[str, Any]:
        return {**logs, **self._aliases(logs, 'train'), **self._aliases(logs, 'valid', 'val_')}

    def state(self) -> Any:
        state = {
            name: json.loads(json.dumps(value, default=lambda array: array.tolist()))
            for name, value in vars(self.wrapped).items()
            if name in self._state and value is not None
        }
        if self._is_csv and os.path.isfile(self.wrapped.filename):
            state['bytes'] = os.path.getsize(self.wrapped.filename)
        return state or None

    def load_state(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise TypeError(f'it is {state!r}')
        for name, types in dict(self._state, bytes=int).items():
            if name in state and not isinstance(state[name], types):
                raise TypeError(f'{name} is {state[name]!r}')
        self._saved = dict(state)

    def _apply(self) -> None:
        for name in self._state.keys() & self._saved.keys():
            setattr(self.wrapped, name, copy.deepcopy(self._saved[name]))
        if 'bytes' in self._saved:  # drop the rows of measurements that are repeated
            self.wrapped.append = True
            if (
                os.path.isfile(self.wrapped.filename)
                and os.path.getsize(self.wrapped.filename) > self._saved['bytes']
            ):
                os.truncate(self.wrapped.filename, self._saved['bytes'])
