"""Stock tf.keras.callbacks in our list, on toy runs with scripted losses: their effects can be
counted by hand.
"""

import json
import os
import threading
import types
from http import server

import numpy as np
import pytest

from gitloss.backend import keras, tf
from keras_runs import LOSSES, rows_of, settings_of, stock, trained
from runs import Poison, trainer_of, weights_of
from trainers import checkpoints


class Shown(stock.LambdaCallback):
    """Records its calls and the rates that it sees, and logs a number and a text."""

    def __init__(self):
        self.calls, self.rates = [], []
        super().__init__(
            on_batch_end=self._batch,
            on_epoch_end=self._epoch,
            on_train_end=lambda logs: self.calls.append(('end', logs['val_loss'])),
        )

    def _batch(self, number, logs):
        self.calls.append(('batch', number))
        assert {'loss', 'acc', 'accuracy', 'size'} <= set(logs)

    def _epoch(self, number, logs):
        self.calls.append(('epoch', number))
        self.rates.append(float(keras.backend.get_value(self.model.optimizer.learning_rate)))
        logs['extra'] = np.float32(number)
        logs['text'] = 'not a number'

    def on_test_begin(self, logs=None):
        self.calls.append(('test', logs))

    def on_test_end(self, logs=None):
        self.calls.append(('tested', logs))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """One run with all callbacks that only observe, and the scheduler: 0.01 / (epoch + 1), times a
    step schedule that halves it after 6 steps.
    """
    folder, shown, history = tmp_path_factory.mktemp('keras'), Shown(), stock.History()
    named = str(folder / 'best' / '{epoch:02d}-{val_loss:.1f}')
    callbacks = [
        stock.LearningRateScheduler(lambda epoch: 0.01 / (epoch + 1)),
        shown,
        history,
        stock.CSVLogger(str(folder / 'log.csv')),
        stock.ModelCheckpoint(named, save_best_only=True),
        stock.ModelCheckpoint(str(folder / 'all.h5'), save_weights_only=True, monitor='nothing'),
        stock.TerminateOnNaN(),
        stock.EarlyStopping(patience=6),
    ]
    settings = settings_of(folder, schedule='step', decay_steps=6, decay_rate=0.5)
    trainer = trained(settings, callbacks)
    return types.SimpleNamespace(
        folder=folder,
        calls=shown.calls,
        rates=shown.rates,
        history=history,
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
    assert run.history.epoch == list(range(6)) and run.history.history['val_loss'] == LOSSES


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
    trainer = trainer_of(settings, [poison, stock.TerminateOnNaN()])
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
