"""Unmodified objects of `tf.keras.callbacks` in the list of callbacks.

A Keras epoch, counted from 0, is the stretch between two measurements, a Keras batch a step within
it. Their `model` is a small stand-in: `stop_training` ends the run, `optimizer.lr` is the variable
of the learning rate, and saving writes a checkpoint of ours. Keras's `get_value` and `set_value`
work in the finalized graph because each hook runs with the run's session as the default one.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any

import numpy as np

from callbacks.base import Callback
from callbacks.keras_model import NUMBER, STATE, Model, refusal
from gitloss.backend import keras, tf


class KerasCallback(Callback):
    """Wraps one object of tf.keras.callbacks.

    Numbers it adds to the logs of a measurement (`lr`) reach the callbacks after it. The counters
    and best values of stock callbacks survive a resume to the last bit.

    Args:
      wrapped: the object; it stays an attribute.

    Raises:
      ValueError: it is no Keras callback, or one that cannot work here; the message says why.
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
        self._monitor_seen = self._in_test = False
        self._images = 0  # of the current call: a sunk loop makes several steps

    def build(self) -> None:
        variable = self.handle.rate_variable
        # set_value takes these two, and would create them in the finalized graph.
        if not hasattr(variable, '_assign_op'):
            variable._assign_placeholder = tf.placeholder(tf.float32, [])
            variable._assign_op = tf.assign(variable, variable._assign_placeholder)
        every = getattr(self.wrapped, 'save_freq', None)
        if 'ModelCheckpoint' in self._kinds and isinstance(every, int):
            # TensorFlow 1.15 counts images, which come in whole batches.
            if hasattr(self.wrapped, '_samples_seen_since_last_saving'):
                every = -(-every // self.handle.batch_size)
            self.intervals = {f'save_freq of {self.wrapped_kind}': every}
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

    def _call(self, hook, *args):
        with self.handle.session.as_default():
            getattr(self.wrapped, hook)(*args)

    # --- hooks

    def on_train_begin(self, logs: Any = None) -> None:
        for variable in tf.global_variables():
            variable._keras_initialized = True  # else Keras adds operations to find out
        self._apply()  # before: a CSVLogger is to append; after: others begin with a reset
        self._call('on_train_begin', {})
        self._apply()
        # It has ended this run before, and its patience was not raised since.
        if self._saved.get('stopped') and self.wrapped.wait >= self.wrapped.patience:
            self._model.stop_training = True

    def on_rewind(self, step: int) -> None:
        if self._is_csv:
            self.close()
            self.wrapped.writer = None
            self._apply()
            self._call('on_train_begin', {})
        self._apply()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._call('on_epoch_begin', epoch - 1, {})

    def on_test_begin(self, logs: Any = None) -> None:
        """A measurement is a test in Keras's terms, unless nothing is evaluated."""
        self._in_test = self.handle.options['evaluate']
        if self._in_test:
            self._call('on_test_begin', {})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seen = self._with_aliases(logs)
        if self._in_test:
            self._in_test = False
            self._call('on_test_end', self._aliases(logs, 'valid'))
        self._check_monitor(seen)
        if self._is_csv:  # its columns are those of its first row
            seen = dict(dict.fromkeys(self.wrapped.keys or (), 'NA'), **seen)
        self._model.metrics_now = {
            name: value for name, value in logs.items() if type(value) in NUMBER
        }
        before = set(seen)
        self._call('on_epoch_end', epoch - 1, seen)
        self._model.metrics_now = {}
        for name, value in seen.items():
            if name not in before and isinstance(value, NUMBER + (np.generic,)):
                logs[name] = np.asarray(value).item()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._images = (batch - self.handle.step) * self.handle.batch_size
        self._call('on_train_batch_begin', (batch - 1) % self.handle.every, {'size': self._images})

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        seen = dict(logs, acc=logs['accuracy'], size=self._images)
        self._call('on_train_batch_end', (batch - 1) % self.handle.every, seen)

    def on_train_end(self, logs: Any = None) -> None:
        self._call('on_train_end', self._with_aliases(logs))

    def close(self) -> None:
        if self._is_csv and hasattr(self.wrapped, 'csv_file'):
            self.wrapped.csv_file.close()

    def _aliases(self, logs, group, prefix=''):
        """The metrics of a data set under Keras's names: `acc` and `accuracy` of `train_acc`."""
        return {
            prefix + alias: logs[name]
            for name, metric in self.handle.metrics.items()
            if metric.group == group and metric.part and name in logs
            for alias in (metric.part, metric.title.replace(' ', '_'))
        }

    def _with_aliases(self, logs):
        return {**logs, **self._aliases(logs, 'train'), **self._aliases(logs, 'valid', 'val_')}

    def _check_monitor(self, logs):
        """Raises ValueError for a name that is not in the logs: Keras would warn, and go on."""
        if (
            'EarlyStopping' in self._kinds
            or 'ReduceLROnPlateau' in self._kinds
            or getattr(self.wrapped, 'save_best_only', False)
        ):
            if not self._monitor_seen and self.wrapped.monitor not in logs:
                raise ValueError(
                    f'{self.wrapped_kind}: expected monitor to be one of '
                    f'{", ".join(sorted(logs))}. Received: {self.wrapped.monitor!r}'
                )
            self._monitor_seen = True

    # --- state

    def state(self) -> Any:
        values = {name: getattr(self.wrapped, name, None) for name in self._state}
        state = {
            name: json.loads(json.dumps(value, default=lambda array: array.tolist()))
            for name, value in values.items()
            if value is not None
        }
        if self._is_csv and os.path.isfile(self.wrapped.filename):
            state['bytes'] = os.path.getsize(self.wrapped.filename)
        if 'EarlyStopping' in self._kinds:
            state['stopped'] = self._model.stop_training
        return state or None

    def load_state(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise TypeError(f'it is {state!r}')
        for name, types in dict(self._state, bytes=int, stopped=bool).items():
            if name in state and not isinstance(state[name], types):
                raise TypeError(f'{name} is {state[name]!r}')
        self._saved = dict(state)

    def _apply(self):
        for name in self._state:
            if name in self._saved:
                setattr(self.wrapped, name, json.loads(json.dumps(self._saved[name])))
        if 'bytes' in self._saved:  # cut off the rows of measurements that come again
            self.wrapped.append = True
            if (
                os.path.isfile(self.wrapped.filename)
                and os.path.getsize(self.wrapped.filename) > self._saved['bytes']
            ):
                os.truncate(self.wrapped.filename, self._saved['bytes'])
