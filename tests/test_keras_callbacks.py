"""Stock tf.keras.callbacks in our list, on toy runs with scripted losses: their effects can be
counted by hand.
"""

import csv
import json
import os
import sys
import threading
import types
from http import server

import numpy as np
import pytest

import toys
from callbacks.base import Callback
from callbacks.checkpoint import Checkpoint
from callbacks.guards import LossGuard
from callbacks.keras import KerasCallback
from callbacks.list import CallbackList
from gitloss import data
from gitloss.backend import keras, tf
from gitloss.errors import HookError
from gitloss.metrics import declaration
from test_resume import Poison, StopAt, weights_of
from trainers import checkpoints, devices
from trainers.engine.trainer import Trainer

stock = keras.callbacks
# Of six measurements. The best so far is the 1st, then the 2nd, then the 5th.
LOSSES = [3.0, 2.0, 4.0, 4.0, 1.0, 1.5]


class Script(Callback):
    """Replaces the evaluation."""

    metrics = (declaration.loss('valid'), declaration.accuracy('valid'))

    def on_epoch_end(self, epoch, logs=None):
        logs.update(valid_loss=LOSSES[epoch - 1], valid_acc=1.0 - LOSSES[epoch - 1] / 10)


class Last(Callback):
    """Records the logs that callbacks behind the Keras ones see."""

    def __init__(self):
        self.epochs, self.steps = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(logs['learning_rate'])

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))
        self.graph = self.handle.session.graph


def settings_of(folder, **changes):
    """12 steps measured every 2: six measurements."""
    return toys.options(folder, **dict({'update_centers': 2}, **changes))


def trained(settings, callbacks, guarded=False):
    last = Last()
    guard = [LossGuard(settings.max_loss, settings.on_nan == 'rollback')] if guarded else []
    trainer = Trainer(
        settings,
        data.load('mnist', settings.data_folder),
        guard + [Script()] + callbacks + [last, Checkpoint()],
        devices.choose(settings),
    )
    trainer.last, trainer.result = last, trainer.fit()
    assert trainer.callbacks.failures == []
    return trainer


def rows_of(path):
    with open(str(path), newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """One run with all callbacks that only observe, and the scheduler: 0.01 / (epoch + 1), times a
    step schedule that halves it after 6 steps.
    """
    folder = tmp_path_factory.mktemp('keras')
    calls, rates = [], []

    def batch(number, logs):
        calls.append(('batch', number))
        assert {'loss', 'acc', 'accuracy', 'size'} <= set(logs)

    def epoch(number, logs):
        calls.append(('epoch', number))
        rates.append(float(keras.backend.get_value(shown.model.optimizer.learning_rate)))
        logs['extra'] = np.float32(number)
        logs['text'] = 'not a number'

    class Shown(stock.LambdaCallback):
        def on_test_begin(self, logs=None):
            calls.append(('test', logs))

        def on_test_end(self, logs=None):
            calls.append(('tested', logs))

    shown = Shown(
        on_batch_end=batch,
        on_epoch_end=epoch,
        on_train_end=lambda logs: calls.append(('end', logs['val_loss'])),
    )
    callbacks = [
        stock.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1)),
        shown,
        stock.History(),
        stock.CSVLogger(str(folder / 'log.csv')),
        stock.ModelCheckpoint(
            str(folder / 'best' / '{epoch:02d}-{val_loss:.1f}'), save_best_only=True
        ),
        stock.ModelCheckpoint(str(folder / 'all.h5'), save_weights_only=True, monitor='nothing'),
        stock.TerminateOnNaN(),
        stock.EarlyStopping(patience=6),
    ]
    settings = settings_of(folder, schedule='step', decay_steps=6, decay_rate=0.5)
    trainer = trained(settings, callbacks)
    return types.SimpleNamespace(
        folder=folder,
        calls=calls,
        rates=rates,
        callbacks=callbacks,
        trainer=trainer,
        settings=settings,
    )


def test_an_epoch_is_the_stretch_between_two_measurements_counted_from_zero(run):
    """A measurement is a test in terms of Keras, whose logs have no prefix."""
    tested = [{'loss': loss, 'acc': 1 - loss / 10, 'accuracy': 1 - loss / 10} for loss in LOSSES]
    assert run.calls == [
        call
        for epoch in range(6)
        for call in (
            ('batch', 0),
            ('batch', 1),
            ('test', {}),
            ('tested', tested[epoch]),
            ('epoch', epoch),
        )
    ] + [('end', 1.5)]


def test_the_scheduler_sets_the_base_rate_and_our_schedule_multiplies_it(run):
    """The base rate is 0.01 / 1, 0.01 / 2, ... by epoch; steps 1 to 6 use all of it, 7 to 12
    half.
    """
    assert run.rates == [pytest.approx(0.01 / n) for n in range(1, 7)]
    assert run.trainer.last.steps == [
        pytest.approx(0.01 / (step // 2 + 1) * (1 if step < 6 else 0.5)) for step in range(12)
    ]
    assert weights_of(run.settings, 12)['learning_rate'] == np.float32(0.01 / 6)


def test_numbers_they_log_reach_those_after_them(run):
    """`lr` of the scheduler and `extra` of the LambdaCallback arrive as plain numbers; the aliases
    and the text do not.
    """
    logs = run.trainer.last.epochs[3]
    assert (logs['lr'], logs['extra'], type(logs['extra'])) == (pytest.approx(0.0025), 3.0, float)
    assert not {'loss', 'acc', 'accuracy', 'val_loss', 'val_acc', 'val_accuracy', 'text'} & set(
        logs
    )


def test_csv_logger(run):
    rows = rows_of(run.folder / 'log.csv')
    assert [row['epoch'] for row in rows] == list('012345')
    assert (
        [float(row['val_loss']) for row in rows]
        == LOSSES
        == [float(row['valid_loss']) for row in rows]
    )
    for alias, name in (
        ('loss', 'train_loss'),
        ('acc', 'train_acc'),
        ('accuracy', 'train_acc'),
        ('val_acc', 'valid_acc'),
    ):
        assert [float(row[alias]) for row in rows] == [float(row[name]) for row in rows]
    assert [float(row['lr']) for row in rows] == run.rates
    assert [float(row['learning_rate']) for row in rows] == run.trainer.last.steps[1::2]


def test_history_of_keras(run):
    history = run.callbacks[2]
    assert history.epoch == list(range(6)) and history.history['val_loss'] == LOSSES


def test_model_checkpoint_saves_ours_under_its_name(run):
    """Improved at measurements 1, 2 and 5, after steps 2, 4 and 10; the other file was replaced
    each time.
    """
    found = sorted(os.listdir(str(run.folder / 'best')))
    assert found == ['01-3.0', '02-2.0', '05-1.0']
    for name, step in zip(found, (2, 4, 10)):
        checkpoint = checkpoints.find(str(run.folder / 'best' / name), '--ckpt_path')
        assert (checkpoint.step, checkpoint.manifest['metrics']['valid_loss']) == (
            step,
            LOSSES[step // 2 - 1],
        )
    assert checkpoints.find(str(run.folder / 'all.h5'), '--ckpt_path').step == 12
    assert sorted(path.name for path in run.folder.iterdir()) == [
        'all.h5',
        'best',
        'data',
        'log.csv',
        'run',
    ]
    names = set(checkpoints.variables(checkpoints.find(str(run.folder / 'all.h5'), '')))
    assert names == set(weights_of(run.settings, 12))


def test_nothing_of_it_stays_in_keras(run):
    """The session of the run is the default one only inside a hook."""
    assert tf.get_default_session() is None and run.trainer.last.graph.finalized


def test_early_stopping(tmp_path):
    """3 2 4 4: two measurements in a row no better than 2, so the fourth one ends it, after step 8.
    The same by accuracy.
    """
    assert (
        trained(settings_of(tmp_path), [stock.EarlyStopping('val_loss', patience=2)]).result['step']
        == 8
    )
    other = settings_of(tmp_path, exp_save_dir=str(tmp_path / 'other'))
    assert trained(other, [stock.EarlyStopping('val_accuracy', patience=2)]).result['step'] == 8


def test_reduce_on_plateau(tmp_path):
    """Losses 3 2 4 4 1 1.5, patience 1, factor 0.1, cooldown 1. At the 3rd 0.01 -> 0.001. At the
    4th the cooldown ends and the wait is 1 at once: 0.0001. At the 5th an improvement, at the 6th
    1.5 > 1: 0.00001, which no step uses. Each rate applies from the following step on.
    """
    trainer = trained(
        settings_of(tmp_path, learning_rate=0.01),
        [stock.ReduceLROnPlateau(patience=1, factor=0.1, cooldown=1)],
    )
    assert trainer.last.steps == [
        pytest.approx(rate, rel=1e-5) for rate in [0.01] * 6 + [0.001] * 2 + [0.0001] * 4
    ]
    assert weights_of(settings_of(tmp_path), 12)['learning_rate'] == pytest.approx(
        0.00001, rel=1e-5
    )


def test_terminate_on_nan(tmp_path):
    """NaN at step 5: the run ends there, with a measurement of step 5 and status 0 as in Keras."""
    poison = Poison(5)
    settings = settings_of(tmp_path)
    trainer = Trainer(
        settings,
        data.load('mnist', settings.data_folder),
        [poison, stock.TerminateOnNaN()],
        devices.choose(settings),
    )
    assert trainer.fit()['step'] == 5


def test_model_checkpoint_by_steps(tmp_path):
    """save_freq counts steps in TensorFlow 2.x, images in 1.15. Every 5 steps is after step 5, in
    the third epoch of two steps, and after step 10, in the fifth.
    """
    every = 5 * (1 if tf.__version__.startswith('2') else 16)
    trained(
        settings_of(tmp_path),
        [stock.ModelCheckpoint(str(tmp_path / 'at' / '{epoch}'), save_freq=every)],
    )
    assert {
        name: checkpoints.read(str(tmp_path / 'at' / name)).step
        for name in os.listdir(str(tmp_path / 'at'))
    } == {'3': 5, '5': 10}


def _stateful(folder, name):
    return [
        stock.EarlyStopping(patience=5),
        stock.ReduceLROnPlateau(patience=1, factor=0.5, cooldown=1),
        stock.ModelCheckpoint(str(folder / name) + '-{epoch}', save_best_only=True),
        stock.CSVLogger(str(folder / name) + '.csv'),
        stock.History(),
    ]


def _timeless(value):
    """A value without what differs between runs: times, speeds and sizes of files."""
    if isinstance(value, dict):
        return {
            key: _timeless(entry)
            for key, entry in value.items()
            if key not in ('seconds', 'images_per_sec', 'bytes')
        }
    return value


@pytest.mark.parametrize('killed_at, save_every', [(7, ''), (10, '3')])
def test_their_state_survives_a_resume(tmp_path, killed_at, save_every):
    """Interrupted during a plateau, a cooldown and a wait: weights, rate, counters, best values and
    the rows of the CSV are as in the undisturbed run. With save_every=3 the run continues inside an
    epoch, at step 9.
    """
    whole = settings_of(tmp_path, exp_save_dir=str(tmp_path / 'a'))
    trained(whole, _stateful(tmp_path, 'whole'))
    broken = settings_of(tmp_path, exp_save_dir=str(tmp_path / 'b'), save_every=save_every)
    with pytest.raises(KeyboardInterrupt):
        trained(broken, _stateful(tmp_path, 'broken') + [StopAt(killed_at)])
    with open(str(tmp_path / 'broken.csv'), 'a') as file:
        file.write('half a ro')
    trained(broken, _stateful(tmp_path, 'broken'))
    left, right = weights_of(whole, 12), weights_of(broken, 12)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    states = [
        checkpoints.read(os.path.join(settings.run_dir, 'ckpt', 'step-00000012')).manifest[
            'callbacks'
        ]
        for settings in (whole, broken)
    ]
    assert (
        _timeless(states[0]) == _timeless(states[1])
        and states[0]['keras.EarlyStopping']['best'] == 1.0
    )
    assert [_timeless(row) for row in rows_of(tmp_path / 'whole.csv')] == [
        _timeless(row) for row in rows_of(tmp_path / 'broken.csv')
    ]
    saved = sorted(path.name for path in tmp_path.glob('*-*'))
    assert saved == [name + number for name in ('broken-', 'whole-') for number in '125']


def test_a_rollback_takes_them_along(tmp_path):
    """NaN at step 7, the first of the fourth epoch: back to step 6. No row occurs twice, the wait
    is not counted twice, and Keras sees the rate that the rollback has halved.
    """
    poison, log = Poison(7), str(tmp_path / 'log.csv')
    settings = settings_of(tmp_path, on_nan='rollback', learning_rate=0.01)
    trainer = Trainer(
        settings,
        data.load('mnist', settings.data_folder),
        [
            poison,
            LossGuard(0, True),
            Script(),
            stock.CSVLogger(log),
            stock.EarlyStopping(patience=3),
            stock.LambdaCallback(
                on_epoch_end=lambda epoch, logs: logs.update(
                    base=keras.backend.get_value(trainer.runtime.rate_variable)
                )
            ),
            Checkpoint(),
        ],
        devices.choose(settings),
    )
    assert trainer.fit()['base'] == pytest.approx(0.005)
    assert poison.seen.count(7) == 2 and [row['epoch'] for row in rows_of(log)] == list('012345')


def test_the_columns_of_a_csv_stay_those_of_its_first_row(tmp_path):
    class Now(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch != 2:
                logs['now'] = float(epoch)
            else:
                logs['then'] = 1.0

    trained(settings_of(tmp_path, steps=6), [Now(), stock.CSVLogger(str(tmp_path / 'log.csv'))])
    rows = rows_of(tmp_path / 'log.csv')
    assert [row['now'] for row in rows] == ['1.0', 'NA', '3.0'] and 'then' not in rows[1]


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
        rf'\(test_keras_callbacks.py, line {line}\)$',
    ):
        trained(settings_of(tmp_path), [Own()])


def test_remote_monitor(tmp_path):
    pytest.importorskip('requests')
    posted = []

    class Receiver(server.BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(
                json.loads(self.rfile.read(int(self.headers['Content-Length'])).decode('utf-8'))
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with server.HTTPServer(('127.0.0.1', 0), Receiver) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        trained(
            settings_of(tmp_path),
            [stock.RemoteMonitor(f'http://127.0.0.1:{http.server_port}', send_as_json=True)],
        )
        http.shutdown()
    assert [(row['epoch'], row['val_loss']) for row in posted] == list(enumerate(LOSSES))


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


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    """Nor a file; and a folder `best.old` beside it is not removed."""
    for name in ('best', 'best.old'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'thesis.tex').write_text('years of work')
    settings = settings_of(tmp_path, steps=2)
    with pytest.raises(
        ValueError, match='best: expected the name of a new folder, or of a checkpoint to replace'
    ):
        trained(settings, [stock.ModelCheckpoint(str(tmp_path / 'best'))])
    (tmp_path / 'best' / 'thesis.tex').rename(tmp_path / 'thesis.tex')
    (tmp_path / 'best').rmdir()
    trained(settings_of(tmp_path, steps=4), [stock.ModelCheckpoint(str(tmp_path / 'best'))])
    assert (tmp_path / 'best.old' / 'thesis.tex').exists() and (
        tmp_path / 'best' / 'manifest.json'
    ).exists()
