"""Learning rate, schedules and optimizers: the numbers, and that the flags reach the training."""

import numpy as np
import pytest

import toys
from callbacks.base import Callback
from callbacks.checkpoint import Checkpoint
from callbacks.evaluation import Evaluation
from gitloss import data
from gitloss.backend import tf
from helpers import graph_session
from runs import StopAt, assert_same_run, fit, history_of, weights_of
from trainers import devices
from trainers.engine import schedules
from trainers.engine.trainer import Trainer
from trainers.options import differing_flags


class Rates(Callback):
    def __init__(self):
        self.steps, self.measured = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(logs['learning_rate'])

    def on_epoch_end(self, epoch, logs=None):
        self.measured.append(logs['learning_rate'])


def factors(count, *args, **settings):
    with graph_session() as session:
        done = tf.placeholder(tf.int64, [])
        value = schedules.factor(done, *args, **settings)
        return [
            value if isinstance(value, float) else session.run(value, {done: n})
            for n in range(count)
        ]


def expected(n, schedule, steps, warmup_steps=0, decay_steps=0, decay_rate=0.1):
    """The docstring of schedules.factor, in plain Python."""
    value = 1.0
    if schedule == 'step':
        value = decay_rate ** (n // decay_steps)
    if schedule == 'cosine' and n > warmup_steps:
        value = (1 + np.cos(np.pi * (n - warmup_steps) / (steps - warmup_steps))) / 2
    return value * min((n + 1) / warmup_steps, 1) if warmup_steps else value


@pytest.mark.parametrize(
    'settings',
    [
        {'schedule': 'constant'},
        {'schedule': 'constant', 'warmup_steps': 5},
        {'schedule': 'step', 'decay_steps': 7, 'decay_rate': 0.5},
        {'schedule': 'step', 'decay_steps': 3, 'warmup_steps': 5},
        {'schedule': 'cosine'},
        {'schedule': 'cosine', 'warmup_steps': 5},
    ],
    ids=str,
)
def test_the_factor_against_numpy(settings):
    found = factors(20, steps=20, **settings)
    np.testing.assert_allclose(
        found, [expected(n, steps=20, **settings) for n in range(20)], rtol=1e-6, atol=1e-7
    )


def test_landmarks():
    """Warm-up of 4: quarters, the 4th step has the full rate. cosine over 8 steps: 1 at first, 1/2
    half-way (n = 4), 0 after the last. step every 3 by 0.1: 1 1 1 0.1 0.1 0.1 0.01. Nothing
    overflows at 10^9 steps.
    """
    assert factors(5, 'constant', 8, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0]
    cosine = factors(9, 'cosine', 8)
    assert (cosine[0], cosine[4], cosine[8]) == (
        1.0,
        pytest.approx(0.5),
        pytest.approx(0.0, abs=1e-7),
    )
    np.testing.assert_allclose(
        factors(7, 'step', 8, decay_steps=3), [1, 1, 1, 0.1, 0.1, 0.1, 0.01], rtol=1e-6
    )
    with graph_session() as session:
        far = schedules.factor(tf.constant(10**9, tf.int64), 'step', 10**10, decay_steps=10**9)
        assert session.run(far) == pytest.approx(0.1)
    with pytest.raises(
        ValueError, match="schedule: expected one of constant, step, cosine. Received: 'exp'"
    ):
        factors(1, 'exp', 8)


def test_the_rate_is_logged_by_step_and_is_the_one_that_is_applied(tmp_path):
    """0.002, step every 4 by 0 after a warm-up of 2: steps 1 to 12 have 0.001, 0.002, 0.002, 0.002,
    then 0: the weights no longer change. A measurement logs the rate of its last step, not a mean.
    """
    settings = toys.options(
        tmp_path,
        learning_rate=0.002,
        schedule='step',
        decay_steps=4,
        decay_rate=0.0,
        warmup_steps=2,
    )
    rates = Rates()
    fit(settings, rates)
    assert rates.steps == [pytest.approx(rate) for rate in [0.001, 0.002, 0.002, 0.002] + [0.0] * 8]
    assert (
        rates.measured
        == [rates.steps[3], 0.0, 0.0]
        == [row['learning_rate'] for row in history_of(settings)]
    )
    before, after = weights_of(settings, 4), weights_of(settings, 12)
    assert before['learning_rate'] == after['learning_rate'] == np.float32(0.002)
    for name in ('conv1_1/kernel', 'embeddings/kernel', 'logits/bias'):
        np.testing.assert_array_equal(before[name], after[name])
        assert np.abs(before[name]).max() > 0


class Losses(Callback):
    """Collects the logs of all steps."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(dict(logs))


@pytest.mark.parametrize('lambda_c, lambda_g', [(2.0, 0.5), (2.0, 0.0), (0.0, 0.0)])
def test_the_weights_of_center_and_git_loss_rise(tmp_path, lambda_c, lambda_g):
    """Over 5 of 12 steps: 1/5, 2/5, ... of the weights, then all. Evaluations have all of them, and
    the terms are logged as they are.
    """
    weights = {'lambda_c': lambda_c, 'lambda_g': lambda_g}
    settings, losses = toys.options(tmp_path, lambda_warmup_steps=5, **weights), Losses()
    fit(settings, losses, Evaluation(data.load('mnist', settings.data_folder).valid))
    assert len(losses.steps) == 12
    for n, logs in enumerate(losses.steps, 1):
        added = lambda_c * logs['center_loss'] + lambda_g * logs['git_loss']
        total = logs['softmax_loss'] + min(n / 5, 1.0) * added
        assert logs['loss'] == pytest.approx(total, rel=1e-5), n
    first = history_of(settings)[0]
    assert first['step'] == 4
    added = lambda_c * first['valid_center_loss'] + lambda_g * first['valid_git_loss']
    assert first['valid_loss'] == pytest.approx(first['valid_softmax_loss'] + added, rel=1e-5)


def test_a_continued_run_finds_its_place_in_the_schedule(tmp_path):
    """Interrupted in step 7, in the middle of a cosine with warm-up. With --save_every=3 the run
    continues from the checkpoint of step 6, inside the epoch measured at step 8.
    """
    settings = {
        'schedule': 'cosine',
        'warmup_steps': 3,
        'lambda_warmup_steps': 9,
        'optimizer': 'momentum',
        'learning_rate': 0.01,
    }
    whole, broken = (
        toys.options(tmp_path, exp_save_dir=str(tmp_path / name), save_every=every, **settings)
        for name, every in (('whole', ''), ('broken', '3'))
    )
    fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, StopAt(7))
    fit(broken)
    assert_same_run(whole, broken, 12)
    assert [row['learning_rate'] for row in history_of(whole)] == [
        pytest.approx(0.01 * expected(n, 'cosine', 12, 3), rel=1e-5) for n in (3, 7, 11)
    ]


@pytest.mark.parametrize(
    'before, after, named',
    [
        ({'schedule': 'cosine'}, {'schedule': 'cosine', 'steps': 20}, ['--steps (was 12, is 20)']),
        (
            {},
            {'schedule': 'cosine', 'steps': 20},
            ['--steps (was 12, is 20)', '--schedule (was constant, is cosine)'],
        ),
        ({'schedule': 'cosine'}, {'schedule': 'cosine', 'early_stopping': 3}, []),
        ({}, {'steps': 20}, []),
        ({}, {'optimizer': 'sgd'}, ['--optimizer (was adam, is sgd)']),
    ],
)
def test_the_length_of_a_cosine_matters_for_a_resume(tmp_path, before, after, named):
    saved = toys.options(tmp_path, **before).as_dict()
    assert differing_flags(saved, toys.options(tmp_path, **after).as_dict()) == named


@pytest.mark.parametrize(
    'optimizer, rate, slots',
    [
        ('adam', 0.003, {'Adam', 'Adam_1'}),
        ('sgd', 0.05, set()),
        ('momentum', 0.02, {'Momentum'}),
        ('adagrad', 0.05, {'Adagrad'}),
    ],
)
def test_each_optimizer_learns(tmp_path, optimizer, rate, slots):
    """Four bright blocks in noise; chance is 0.25. The checkpoint has the slots of this optimizer
    only.
    """
    settings = toys.options(
        tmp_path,
        steps=100,
        update_centers=100,
        embedding_dim=8,
        optimizer=optimizer,
        learning_rate=rate,
    )
    dataset = data.load('mnist', settings.data_folder)
    logs = Trainer(
        settings, dataset, [Evaluation(dataset.valid), Checkpoint()], devices.choose(settings)
    ).fit()
    assert logs['valid_acc'] == 1.0
    assert {
        name[len('conv1_1/kernel/') :]
        for name in weights_of(settings, 100)
        if name.startswith('conv1_1/kernel/')
    } == slots
