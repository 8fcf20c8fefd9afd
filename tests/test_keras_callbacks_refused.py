"""Keras callbacks that cannot work here, and mistakes in them, each named in one line."""

import os
import sys
import types

import pytest

from callbacks.keras import KerasCallback
from callbacks.list import CallbackList
from gitloss.backend import keras, tf
from gitloss.errors import HookError
from gitloss.metrics import declaration
from keras_runs import settings_of, stock, trained


def test_the_model_they_see(tmp_path):
    """The rate can be set in three ways; there is no model to predict with, and no operation can be
    added.
    """
    said = []

    class Own(stock.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            optimizer = self.model.optimizer
            if epoch == 0:
                keras.backend.set_value(optimizer.lr, 0.25)
            elif epoch == 1:
                optimizer.lr = 0.5
            said.append(float(keras.backend.get_value(optimizer.learning_rate)))

        def on_train_end(self, logs=None):
            for attempt in (lambda: self.model.predict(1), lambda: tf.constant(1.0)):
                with pytest.raises((AttributeError, RuntimeError)) as caught:
                    attempt()
                said.append(str(caught.value))

    trained(settings_of(tmp_path, steps=4), [Own()])
    assert said[:2] == [0.25, 0.5]
    assert (
        said[2].startswith(
            'model.predict: expected stop_training, optimizer.lr, save or save_weights'
        )
        and 'finalized' in said[3]
    )


def test_what_the_model_has_not_is_a_line_with_the_place(tmp_path):
    class Own(stock.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.predict(1)

    line = Own.on_epoch_end.__code__.co_firstlineno + 1
    with pytest.raises(
        HookError,
        match=r'^keras.Own.on_epoch_end: AttributeError: model.predict: expected stop_training.* '
        rf'\(test_keras_callbacks_refused.py, line {line}\)$',
    ):
        trained(settings_of(tmp_path), [Own()])


REFUSED = {
    'TensorBoard': lambda: stock.TensorBoard('x'),
    'ProgbarLogger': stock.ProgbarLogger,
    'BaseLogger': stock.BaseLogger,
    'BackupAndRestore': lambda: stock.BackupAndRestore('x'),
    'restore_best_weights=True': lambda: stock.EarlyStopping(restore_best_weights=True),
    'load_weights_on_restart=True': lambda: stock.ModelCheckpoint(
        'x', load_weights_on_restart=True
    ),
    'MyBoard; it traces a Keras model': lambda: type('MyBoard', (stock.TensorBoard,), {})('x'),
    "Received: 'object' of builtins": object,
}


@pytest.mark.parametrize('named', sorted(REFUSED))
def test_what_cannot_work_is_refused_at_once_and_says_why(named):
    if named == 'BackupAndRestore' and not hasattr(stock, named):
        pytest.skip('TensorFlow 1.15 has none')
    with pytest.raises(ValueError, match='^callbacks: expected .* Received: ') as caught:
        CallbackList([REFUSED[named]()])
    assert named in str(caught.value)


def test_the_other_keras_is_refused():
    """Keras 3, if TensorFlow 2.x brings it along: its callbacks need its own optimizers."""
    other = pytest.importorskip('keras')
    with pytest.raises(
        ValueError,
        match=r"keras being that of gitloss.backend. Received: 'EarlyStopping' of keras\.",
    ):
        CallbackList([other.callbacks.EarlyStopping()])


def test_remote_monitor_wants_requests(monkeypatch):
    monkeypatch.setitem(sys.modules, 'requests', None)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(
        ValueError, match='keras.RemoteMonitor; the package requests is not installed'
    ):
        KerasCallback(stock.RemoteMonitor())


class FakeHandle:
    step, steps, every, batch_size = 4, 12, 2, 16
    metrics, options = {'train_loss': declaration.loss('train')}, {'evaluate': False}

    def __init__(self):
        self.rate_variable = types.SimpleNamespace(_assign_op=None)

    session = types.SimpleNamespace(as_default=lambda: open(os.devnull))

    def save_aside(self, path, metrics=None):
        raise OSError('no space left')


def built(callback):
    wrapper = KerasCallback(callback)
    wrapper.handle = FakeHandle()
    wrapper.build()
    return wrapper


@pytest.mark.parametrize(
    'make',
    [
        lambda: stock.EarlyStopping('val_los'),
        lambda: stock.ReduceLROnPlateau('val_los'),
        lambda: stock.ModelCheckpoint('x', 'val_los', save_best_only=True),
    ],
)
def test_a_mistyped_monitor_is_an_error(make):
    with pytest.raises(
        ValueError,
        match=r'keras\.\w+: expected monitor to be one of loss, step, train_loss. Received: '
        r"'val_los'",
    ):
        built(make()).on_epoch_end(1, {'step': 2, 'train_loss': 1.0})


def test_a_full_disk_costs_a_checkpoint_and_no_training(tmp_path, caplog):
    wrapper = built(stock.ModelCheckpoint(str(tmp_path / 'x')))
    with caplog.at_level('WARNING', logger='gitloss'):
        wrapper.on_epoch_end(1, {'step': 2, 'train_loss': 1.0})
    assert 'keras.ModelCheckpoint: no checkpoint at step 4: no space left' in caplog.text


@pytest.mark.parametrize('state', [{'wait': 'x'}, {'best': [1]}, {'stopped_epoch': 'x'}, []])
def test_a_state_that_is_none_is_named(state):
    callbacks = CallbackList([stock.EarlyStopping()])
    with pytest.raises(ValueError, match='a: expected the state that keras.EarlyStopping saved'):
        callbacks.load_state({'keras.EarlyStopping': state}, 'a')
