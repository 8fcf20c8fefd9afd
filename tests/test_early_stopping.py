"""Early stopping by flags: when it stops, and which metrics may choose."""

import json
import os

import pytest

import toys
from callbacks.base import Callback
from callbacks.checkpoint import Checkpoint
from callbacks.early_stopping import EarlyStopping
from callbacks.history import History
from gitloss import data
from gitloss.metrics import Metric
from trainers import devices, run
from trainers.engine.trainer import Trainer


class Scripted(Callback):
    """Logs one value per measurement, of a declared metric."""

    def __init__(self, name, values, higher_is_better=False):
        self.metrics = (Metric(name, name, 'valid', higher_is_better),)
        self._name, self._values = name, values

    def on_epoch_end(self, epoch, logs=None):
        logs[self._name] = self._values[epoch - 1]


def stopped_at(settings, values, higher_is_better=False):
    callbacks = [
        Scripted(settings.monitor, values, higher_is_better),
        EarlyStopping(settings.monitor, settings.early_stopping),
        History(),
        Checkpoint(),
    ]
    return Trainer(
        settings, data.load('mnist', settings.data_folder), callbacks, devices.choose(settings)
    ).fit()['step']


def test_early_stopping_by_a_flag(tmp_path, caplog):
    """A loss of 3 2 4 2 1 with a patience of 2, measured every 2 steps: 2 is the best at step 4; 4
    and the equal 2 are no better, so the run ends at step 8. The same command again does nothing;
    with more patience the run goes on, finds 1 and ends after its last step.
    """
    script = [3.0, 2.0, 4.0, 2.0, 1.0, 5.0]
    settings = {'steps': 12, 'update_centers': 2, 'early_stopping': 2}
    with caplog.at_level('INFO', logger='gitloss'):
        assert stopped_at(toys.options(tmp_path, **settings), script) == 8
        assert 'stopping after step 8: keras.EarlyStopping, best valid_loss 2' in caplog.text
        assert stopped_at(toys.options(tmp_path, **settings), script) == 8
        assert stopped_at(toys.options(tmp_path, **dict(settings, early_stopping=3)), script) == 12
    with open(os.path.join(toys.options(tmp_path).run_dir, 'history.jsonl')) as file:
        assert [json.loads(line)['step'] for line in file] == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize('higher_is_better, step', [(True, 6), (False, 4)])
def test_early_stopping_takes_the_direction_from_the_declaration(tmp_path, higher_is_better, step):
    """0.5 0.6 0.6: where higher is better, the third measurement is the first that is no better,
    step 6; otherwise it is the second, step 4.
    """
    settings = toys.options(tmp_path, update_centers=2, early_stopping=1, monitor='my_score')
    assert stopped_at(settings, [0.5, 0.6, 0.6, 0.7, 0.8, 0.9], higher_is_better) == step


@pytest.mark.parametrize(
    'changes, said',
    [
        ({'monitor': 'train_los'}, 'train_loss, train_git_loss, train_center_loss'),
        # Measured by Evaluation and CenterMeasurement, which --noevaluate leaves out.
        *(({'monitor': name}, None) for name in ('valid_loss', 'intra_cls_dist', 'centers_moved')),
        # Neither direction is better.
        *(({'monitor': name}, None) for name in ('learning_rate', 'train_git_floor')),
        ({'early_stopping': 0, 'best': 'inter_cls_dist'}, None),
    ],
)
def test_what_is_not_declared_cannot_choose(tmp_path, capsys, changes, said):
    """One line, status 2, and no run folder."""
    settings = toys.options(tmp_path, **{'evaluate': False, 'early_stopping': 2, **changes})
    assert run.main(toys.flags_of(settings)) == 2
    flag, name = list(changes.items())[-1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f'trainers.run: --{flag}: expected a metric that is declared with a better direction: '
        + (said or '')
    )
    assert line.endswith(f'. Received: {name!r}') and not os.path.exists(settings.run_dir)


def test_what_a_training_alone_logs_may_be_watched(tmp_path):
    settings = toys.options(tmp_path, evaluate=False, early_stopping=9, monitor='train_loss')
    assert run.main(toys.flags_of(settings)) == 0
