"""Metrics are declared once; all code that shows or compares them reads the declaration."""

import json
import os

import numpy as np
import pytest

import toys
from callbacks.base import Callback, RunHandle
from callbacks.centers import CenterMeasurement
from callbacks.checkpoint import Checkpoint
from callbacks.history import History
from callbacks.list import CallbackList
from gitloss import data
from gitloss.metrics import Metric, declaration
from trainers import checkpoints, devices
from trainers.engine.meter import Meter
from trainers.engine.trainer import Trainer


def test_a_metric_of_a_data_set_is_named_after_its_group():
    """`learning_rate` is in the section of the training, but is not a mean over the training set;
    `centers_moved` begins with the name of its group, which is not a data set.
    """
    found = [
        (metric.part, metric.tag, metric.full_title)
        for metric in (
            declaration.accuracy('valid'),
            declaration.loss('train', 'git_loss'),
            Metric('learning_rate', 'learning rate', 'train'),
            Metric('centers_moved', 'fraction of centers moved', 'centers'),
            Metric('mine', 'my number'),
        )
    ]
    assert found == [
        ('acc', 'valid/acc', 'validation accuracy'),
        ('git_loss', 'train/git_loss', 'training git loss'),
        ('', 'train/learning_rate', 'learning rate'),
        ('', 'centers/centers_moved', 'fraction of centers moved'),
        ('', 'run/mine', 'my number'),
    ]


@pytest.mark.parametrize(
    'value, form, text',
    [
        (0.98765, '.4f', '0.9877'),
        (0.000123456, '', '0.0001235'),
        (1234.56, '', '1235'),
        (2.5e12, '', '2.500e+12'),
        (10000, ',', '10,000'),
        (10000, '', '10000'),
        ('words', '.4f', 'words'),
        (None, '', 'None'),
        (float('nan'), '', 'nan'),
    ],
)
def test_values_for_readers(value, form, text):
    assert Metric('a', 'a', form=form).text(value) == text


ROWS = [{'a': 2.0}, {'a': 1.0}, {}, {'a': 3.0}, {'a': 1.0}, {'a': 3.0}, {'a': float('nan')}]


@pytest.mark.parametrize(
    'name, higher_is_better, place', [('a', True, 3), ('a', False, 1), ('b', True, None)]
)
def test_the_best_row_is_the_first_of_equals(name, higher_is_better, place):
    """3 at 3 and 5, 1 at 1 and 4; a row without the value, or with NaN or text, does not count."""
    rows = ROWS + [{'a': float('inf')}, {'a': 'text'}, {'a': -float('inf')}]
    assert declaration.best(rows, name, higher_is_better) == place


def test_what_can_be_chosen_by_is_declared_with_a_direction():
    metrics = declaration.by_name(
        [declaration.loss('valid'), declaration.accuracy('valid'), declaration.accuracy('test')]
    )
    assert declaration.chosen(metrics, 'valid_acc', '--best').higher_is_better
    for name, near in (
        ('valid_ac', 'valid_acc, valid_loss'),
        ('valid_los', 'valid_loss, valid_acc'),
        ('score', 'valid_loss, valid_acc'),
        ('test_acc', 'valid_loss, valid_acc'),
    ):
        with pytest.raises(ValueError) as caught:
            declaration.chosen(metrics, name, '--best')
        assert str(caught.value) == (
            '--best: expected a metric that is declared with a better direction: '
            f'{near}. Received: {name!r}'
        )


class Declaring(Callback):
    def __init__(self, metrics):
        self.metrics = metrics


def test_the_list_collects_the_declarations_group_by_group():
    """Metrics of the training come first, then validation; `run` and new groups come last. Of two
    with one name the last one counts, at the place of its group.
    """
    handle = RunHandle()
    handle.metrics = declaration.by_name(Meter(('loss', 'accuracy', 'center_drift'), 16).metrics)
    mine = Metric('score', 'score', 'mine', True)
    CallbackList(
        [CenterMeasurement(None), Declaring([mine, declaration.accuracy('valid')]), Declaring(())]
    ).build(handle)
    assert list(handle.metrics) == [
        'train_loss',
        'train_acc',
        'learning_rate',
        'valid_acc',
        'inter_cls_dist',
        'intra_cls_dist',
        'inter_over_intra',
        'inter_cls_dist_error',
        'intra_cls_dist_error',
        'inter_cls_dist_running',
        'center_drift',
        'centers_moved',
        'images_per_sec',
        'seconds',
        'overflow_steps',
        'score',
    ]
    again = CallbackList([Declaring([Metric('score', 'points', 'mine', False)])])
    again.build(handle)
    assert handle.metrics['score'].title == 'points' and list(handle.metrics)[-1] == 'score'
    assert RunHandle.metrics == {}


@pytest.mark.parametrize('metrics', [Metric('a', 'a'), ('valid_acc',), 'valid_acc', None])
def test_a_declaration_that_is_none_is_named(metrics):
    """The comma of a one-element tuple is easily forgotten."""
    with pytest.raises(
        ValueError,
        match='^Declaring.metrics: expected a sequence of gitloss.metrics.Metric. Received: ',
    ):
        CallbackList([Declaring(metrics)]).build(RunHandle())


class Script(Callback):
    """Logs scripted values of a declared metric, and a flag, which is no metric."""

    metrics = (Metric('score', 'score', 'mine', higher_is_better=False),)

    def __init__(self, values):
        self._values = values

    def on_epoch_end(self, epoch, logs=None):
        logs.update(score=self._values[epoch - 1], flag=np.bool_(True))


def test_the_best_checkpoint_is_the_one_of_best(tmp_path):
    """0.3 0.1 0.2, lower is better, at steps 4, 8, 12; the newest one is kept and the best. The run
    says by which metric: where no flag is at hand, the one of step 8 is found.
    """
    settings = toys.options(tmp_path, best='score', keep_checkpoints=1)
    dataset = data.load('mnist', settings.data_folder)
    callbacks = [Script([0.3, 0.1, 0.2]), History(best=settings.best), Checkpoint()]
    Trainer(settings, dataset, callbacks, devices.choose(settings)).fit()
    folder = os.path.join(settings.run_dir, 'ckpt')
    assert sorted(os.listdir(folder)) == ['step-00000008', 'step-00000012']
    found = checkpoints.find(settings.run_dir, '--ckpt_path')
    assert found.step == 8 and found.manifest['metrics']['score'] == 0.1
    assert found.manifest['best'] == {'name': 'score', 'higher_is_better': False}
    with open(os.path.join(settings.run_dir, 'results.json')) as file:
        results = json.load(file)
    assert (results['best']['step'], results['best_by']) == (8, 'score')


def test_without_a_measurement_there_is_no_best(tmp_path):
    """The default of --best is measured by an evaluation. Without one it is not required, and the
    newest checkpoint of a folder is used.
    """
    settings = toys.options(tmp_path, evaluate=False)
    dataset = data.load('mnist', settings.data_folder)
    callbacks = [History(), Checkpoint()]
    Trainer(settings, dataset, callbacks, devices.choose(settings)).fit()
    found = checkpoints.find(settings.run_dir, '--ckpt_path')
    assert found.step == 12 and found.manifest['best'] == {}
    with open(os.path.join(settings.run_dir, 'results.json')) as file:
        results = json.load(file)
    assert results['best'] is None and results['best_by'] is None
