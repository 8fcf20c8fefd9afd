"""The state of Keras callbacks: what they keep over a resume, a rollback and in their files."""

import os

import numpy as np
import pytest

from callbacks.base import Callback
from callbacks.checkpoint import Checkpoint
from callbacks.guards import LossGuard
from gitloss.backend import keras
from keras_runs import Script, rows_of, settings_of, stock, trained
from runs import Poison, StopAt, trainer_of, weights_of
from trainers import checkpoints


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
    trainer = trainer_of(
        settings,
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
