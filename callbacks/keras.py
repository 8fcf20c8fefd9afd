"""Objects of `tf.keras.callbacks` in our list, as they are.

An epoch of Keras, counted from 0, is the stretch between two measurements, a batch of Keras the
step within it. Their `model` is a small stand-in: `stop_training` ends the run, `optimizer.lr` is
the variable of the learning rate, and saving writes our checkpoint. Keras's `get_value` and
`set_value` work in the finalized graph because each hook runs with the run's session as the default
one.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os

import numpy as np

from callbacks.base import Callback
from gitloss.backend import keras, tf
from gitloss.errors import log

_ALIASES = {
    'loss': 'train_loss',
    'acc': 'train_acc',
    'accuracy': 'train_acc',
    'val_loss': 'valid_loss',
    'val_acc': 'valid_acc',
    'val_accuracy': 'valid_acc',
}
_NUMBER = (int, float)
# What a checkpoint keeps of stock callbacks: attributes and their types. Not all are there on both
# TensorFlows.
_STATE = {
    'EarlyStopping': dict.fromkeys(('wait', 'best', 'best_epoch', 'stopped_epoch'), _NUMBER),
    'ReduceLROnPlateau': dict.fromkeys(('wait', 'best', 'cooldown_counter'), _NUMBER),
    'ModelCheckpoint': dict.fromkeys(
        (
            'best',
            'epochs_since_last_save',
            '_current_epoch',
            '_last_batch_seen',
            '_batches_seen_since_last_saving',
            '_samples_seen_since_last_saving',
        ),
        _NUMBER,
    ),
    'CSVLogger': {'keys': list},
    'History': {'epoch': list, 'history': dict},
}
_CANNOT = {
    'TensorBoard': 'it wants a Keras model to trace; callbacks.tensorboard.TensorBoard writes the event files',
    'BackupAndRestore': 'it restores a Keras model; --resume and --save_every do that for the whole run',
    'ProgbarLogger': 'callbacks.progress.Progress draws the bar',
    'BaseLogger': 'it is for the loop inside Model.fit; the means are in the logs',
    'UpdateEmbeddingCallback': 'there is no DynamicEmbedding layer',
    'SidecarEvaluatorModelExport': 'it saves a Keras model',
}


def _refusal(callback, kinds):
    """Why a callback of Keras cannot work here, or None."""
    for name in kinds:
        if name in _CANNOT:
            return _CANNOT[name]
    if 'EarlyStopping' in kinds and callback.restore_best_weights:
        return (
            'restore_best_weights=True would put weights back into no checkpoint; the best one by valid_acc is kept on the disk, and '
            'trainers.evaluate takes it'
        )
    if 'ModelCheckpoint' in kinds and callback.load_weights_on_restart:
        return 'load_weights_on_restart=True: --resume continues a run, --init_checkpoint starts one from weights'
    if 'RemoteMonitor' in kinds and importlib.util.find_spec('requests') is None:
        return 'the package requests is not installed'
    return None


class _Optimizer:
    """`lr` is the variable itself, as get_value and set_value want it; a number put in its place is
    set.
    """

    def __init__(self, variable):
        self._variable = variable

    @property
    def learning_rate(self):
        return self._variable

    @learning_rate.setter
    def learning_rate(self, value):
        keras.backend.set_value(self._variable, value)

    lr = learning_rate


class _Model:
    """What callbacks of Keras may ask of a model here."""

    _is_graph_network, distribute_strategy = True, None  # ModelCheckpoint looks at them

    def __init__(self, wrapped, kind, handle):
        self._wrapped, self._kind, self._handle, self._stop = wrapped, kind, handle, False
        self.optimizer, self.metrics_now = _Optimizer(handle.rate_variable), {}

    def _in_multi_worker_mode(self):
        return False

    @property
    def stop_training(self):
        return self._stop

    @stop_training.setter
    def stop_training(self, value):
        if value and not self._stop:
            best = getattr(self._wrapped, 'best', None)
            self._handle.stop(
                self._kind + ('' if best is None else f', best {self._wrapped.monitor} {best:g}')
            )
        self._stop = bool(value)

    def save(self, filepath, overwrite=True, **_):
        """Our checkpoint, in a folder of that name. A full disk costs this checkpoint, not the
        training.
        """
        try:
            self._handle.save_aside(filepath, self.metrics_now)
        except OSError as error:
            log.warning('%s: no checkpoint at step %d: %s', self._kind, self._handle.step, error)

    save_weights = save

    def __getattr__(self, name):
        raise AttributeError(
            f'model.{name}: expected stop_training, optimizer.lr, save or save_weights, which is all that callbacks of Keras '
            'find here; one of callbacks.base.Callback can do more'
        )


class KerasCallback(Callback):
    """One object of tf.keras.callbacks.

    Numbers it adds to the logs of a measurement (`lr`) reach the callbacks after it. Of stock
    callbacks what they count and the best value survive a resume to the last bit.

    Raises:
      ValueError: it is none, or one that cannot work here; the message says why.
    """

    def __init__(self, wrapped):
        if not isinstance(wrapped, keras.callbacks.Callback):
            raise ValueError(
                'callbacks: expected objects of callbacks.base.Callback or of keras.callbacks.Callback, keras being that of '
                f'gitloss.backend. Received: {type(wrapped).__name__!r} of {type(wrapped).__module__}'
            )
        self.wrapped, self.wrapped_kind = wrapped, 'keras.' + type(wrapped).__name__
        self._kinds = [
            cls.__name__
            for cls in type(wrapped).__mro__
            if cls.__module__.startswith(('tensorflow', 'tf_keras'))
        ]
        reason = _refusal(wrapped, self._kinds)
        if reason:
            raise ValueError(
                f'callbacks: expected callbacks that can work in a graph-mode run. Received: {self.wrapped_kind}; {reason}'
            )
        self._state = {
            name: types for kind in self._kinds for name, types in _STATE.get(kind, {}).items()
        }
        self._is_csv = 'CSVLogger' in self._kinds
        self.chief_only = self._is_csv or 'RemoteMonitor' in self._kinds
        self._saved, self._monitor_seen, self._in_test = {}, False, False
        self._images = 0  # of the call under way: a sunk loop makes several steps

    @property
    def intervals(self):
        """Of a ModelCheckpoint by number: steps, or on TensorFlow 1.15 images, which come in whole
        batches.
        """
        every = getattr(self.wrapped, 'save_freq', None)
        if 'ModelCheckpoint' not in self._kinds or not isinstance(every, int):
            return {}
        in_images = hasattr(self.wrapped, '_samples_seen_since_last_saving')
        return {
            f'save_freq of {self.wrapped_kind}': -(-every // self.handle.batch_size)
            if in_images
            else every
        }

    def build(self):
        variable = self.handle.rate_variable
        if not hasattr(variable, '_assign_op'):  # where set_value looks before it would create them
            variable._assign_placeholder = tf.placeholder(tf.float32, [])
            variable._assign_op = tf.assign(variable, variable._assign_placeholder)
        self._model = _Model(self.wrapped, self.wrapped_kind, self.handle)
        self.wrapped.set_params(
            {
                'epochs': math.ceil(self.handle.steps / self.handle.every),
                'steps': self.handle.every,
                'verbose': 0,
                'batch_size': self.handle.batch_size,
                'samples': self.handle.every * self.handle.batch_size,
                'do_validation': True,
                'metrics': sorted(_ALIASES),
            }
        )
        self.wrapped.set_model(self._model)

    def _call(self, hook, *args):
        with self.handle.session.as_default():
            getattr(self.wrapped, hook)(*args)

    # --- hooks
    # --------------------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        for variable in tf.global_variables():
            variable._keras_initialized = True  # else Keras adds operations to find out
        self._apply()  # before: a CSVLogger is to append; after: others begin with a reset
        self._call('on_train_begin', {})
        self._apply()
        if self._saved.get('stopped') and self.wrapped.wait >= self.wrapped.patience:
            self._model.stop_training = (
                True  # it had ended this run, and its patience was not raised since
            )

    def on_rewind(self, step):
        if self._is_csv:
            self.close()
            self.wrapped.writer = None
            self._apply()
            self._call('on_train_begin', {})
        self._apply()

    def on_epoch_begin(self, epoch, logs=None):
        self._call('on_epoch_begin', epoch - 1, {})

    def on_test_begin(self, logs=None):
        """Keras's tests are our measurements, of which a run without evaluation has none."""
        self._in_test = self.handle.options['evaluate']
        if self._in_test:
            self._call('on_test_begin', {})

    def on_epoch_end(self, epoch, logs=None):
        seen = self._with_aliases(logs)
        if self._in_test:
            self._in_test = False
            tested = {
                name[len('valid_') :]: value
                for name, value in logs.items()
                if name.startswith('valid_')
            }
            self._call('on_test_end', dict(tested, accuracy=tested.get('acc')))
        self._check_monitor(seen)
        if self._is_csv:  # its columns are those of its first row
            seen = dict(dict.fromkeys(self.wrapped.keys or (), 'NA'), **seen)
        self._model.metrics_now = {
            name: value for name, value in logs.items() if isinstance(value, _NUMBER)
        }
        before = set(seen)
        self._call('on_epoch_end', epoch - 1, seen)
        self._model.metrics_now = {}
        for name, value in seen.items():
            if name not in before and isinstance(value, _NUMBER + (np.generic,)):
                logs[name] = np.asarray(value).item()

    def on_train_batch_begin(self, batch, logs=None):
        self._images = (batch - self.handle.step) * self.handle.batch_size
        self._call('on_train_batch_begin', (batch - 1) % self.handle.every, {'size': self._images})

    def on_train_batch_end(self, batch, logs=None):
        seen = dict(logs, acc=logs['accuracy'], size=self._images)
        self._call('on_train_batch_end', (batch - 1) % self.handle.every, seen)

    def on_train_end(self, logs=None):
        self._call('on_train_end', self._with_aliases(logs))

    def close(self):
        if self._is_csv and hasattr(self.wrapped, 'csv_file'):
            self.wrapped.csv_file.close()

    def _with_aliases(self, logs):
        return dict(logs, **{alias: logs[name] for alias, name in _ALIASES.items() if name in logs})

    def _check_monitor(self, logs):
        """Keras itself goes on with a warning, and a mistyped name would never stop anything."""
        if (
            'EarlyStopping' in self._kinds
            or 'ReduceLROnPlateau' in self._kinds
            or getattr(self.wrapped, 'save_best_only', False)
        ):
            if not self._monitor_seen and self.wrapped.monitor not in logs:
                raise ValueError(
                    '{}: expected monitor to be one of {}. Received: {!r}'.format(
                        self.wrapped_kind, ', '.join(sorted(logs)), self.wrapped.monitor
                    )
                )
            self._monitor_seen = True

    # --- what survives a resume
    # ---------------------------------------------------------------------------------------------

    def state(self):
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

    def load_state(self, state):
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
        if 'bytes' in self._saved:  # rows of measurements that will be made again go
            self.wrapped.append = True
            if (
                os.path.isfile(self.wrapped.filename)
                and os.path.getsize(self.wrapped.filename) > self._saved['bytes']
            ):
                os.truncate(self.wrapped.filename, self._saved['bytes'])
