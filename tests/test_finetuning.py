"""Fine-tuning in stages: variables that are frozen until a step, and a rate for the backbone."""

import os
import shutil
from unittest import mock

import numpy as np
import pytest

import toys
from gitloss import data
from gitloss.backbones import BACKBONES
from gitloss.backend import tf
from survival import tensors
from test_training_mode import NETWORK, newest, options, train
from trainers import devices
from trainers.engine.graph import TrainingGraph
from trainers.options import Options

AROUND = ('embeddings/', 'logits/', 'center_loss/', 'preprocess/')


@pytest.fixture(autouse=True)
def _network(monkeypatch):
    monkeypatch.setitem(BACKBONES, 'normalised', NETWORK)


def weights(settings):
    """{name: value} of the newest checkpoint, without slots of the optimizer."""
    return {
        name: value
        for name, value in tensors(newest(settings)).items()
        if not name.split('/')[-1].startswith(('Momentum', 'Adam', 'beta1_', 'beta2_'))
    }


def of_backbone(values):
    return {
        name: value for name, value in values.items() if name.startswith(('conv/', 'dense/', 'of_'))
    }


def test_the_backbone_rests_until_it_is_unfrozen(tmp_path):
    """8 steps, the backbone frozen in the first four: after step 4 its weights and moving averages
    are the initial ones of the seed, as those of a run that freezes it for good; after step 8 every
    one of them has moved. Embedding layer and classifier move from the first step.
    """
    shared = dict(update_centers=4, freeze='backbone')
    frozen = options(tmp_path, exp_save_dir=str(tmp_path / 'frozen'), steps=4, **shared)
    train(frozen)
    halfway = options(tmp_path, steps=4, unfreeze_at=4, **shared)
    train(halfway)
    one, two = weights(frozen), weights(halfway)
    assert sorted(one) == sorted(two) and len(of_backbone(one)) == 16
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])
    train(options(tmp_path, steps=8, unfreeze_at=4, **shared))
    after = weights(halfway)
    still = [name for name, value in of_backbone(two).items() if (value == after[name]).all()]
    assert still == []
    np.testing.assert_array_equal(one['of_features/moving_mean'], np.zeros(4))


@pytest.fixture(scope='module')
def whole_runs(tmp_path_factory):
    """{loss scale: options of a whole run of 8 steps with the checkpoints of all of them}."""
    runs, folder = {}, tmp_path_factory.mktemp('whole')
    with mock.patch.dict(BACKBONES, normalised=NETWORK):
        for scale in ('', '1024'):
            runs[scale] = options(
                folder,
                exp_save_dir=str(folder / f'scale{scale}'),
                steps=8,
                update_centers=8,
                save_every='1',
                keep_checkpoints=9,
                freeze='backbone',
                unfreeze_at=4,
                backbone_rate=0.1,
                optimizer='adam',
                loss_scale=scale,
            )
            train(runs[scale])
    return runs


@pytest.mark.parametrize('step, scale', [(2, ''), (3, ''), (4, ''), (2, '1024'), (5, '1024')])
def test_a_run_resumed_around_the_unfreezing_is_bit_equal(whole_runs, tmp_path, step, scale):
    """With Adam, whose powers of beta are variables: two for each of the two groups of variables,
    also where loss scaling creates them inside a conditional. The checkpoint of the step is the
    newest that a run has left; that a kill leaves it so, test_resume.py proves.
    """
    whole = whole_runs[scale]
    settings = Options.restored(whole.as_dict(), exp_save_dir=str(tmp_path / 'run'))
    shutil.copytree(whole.run_dir, settings.run_dir)
    for later in range(step + 1, 9):
        shutil.rmtree(os.path.join(settings.run_dir, 'ckpt', f'step-{later:08}'))
    assert newest(settings).step == step
    train(settings)
    one, two = tensors(newest(whole)), tensors(newest(settings))
    assert sorted(one) == sorted(two)
    powers = [value for name, value in one.items() if 'beta1_power' in name]
    assert sorted(powers) == pytest.approx([0.9**9, 0.9**5])  # after 8 and 4 steps
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)


@pytest.mark.parametrize('optimizer, scale', [('sgd', ''), ('adam', ''), ('sgd', '1024')])
def test_the_backbone_has_a_rate_of_its_own(tmp_path, optimizer, scale):
    """The first step of a rate of a quarter moves the backbone a quarter as far, to the rounding of
    weights near 1 in float32, and everything around it exactly as far. Adam too: its first step is
    rate * g / (|g| + epsilon'), in which the gradient g does not depend on the rate.
    """
    moves = {}
    for rate in (1.0, 0.25):
        settings = options(
            tmp_path,
            exp_save_dir=str(tmp_path / f'{rate}'),
            optimizer=optimizer,
            loss_scale=scale,
            backbone_rate=rate,
            weight_decay=0.0,
        )
        moves[rate] = first_moves(settings)
    names = [name for name in moves[1.0] if not name.startswith(AROUND)]
    assert len(names) == 10
    for name, move in moves[1.0].items():
        if name in names:
            np.testing.assert_allclose(moves[0.25][name], 0.25 * move, rtol=0, atol=2e-7)
        else:
            np.testing.assert_array_equal(moves[0.25][name], move)
    assert max(np.abs(moves[1.0][name]).max() for name in names) > 1e-4


def first_moves(settings):
    """{name: change of a trained variable in the first step}, and the global step is 1."""
    dataset = data.load('mnist', settings.data_folder)
    with tf.Graph().as_default():
        net = TrainingGraph(settings, dataset.spec, devices.choose(settings), source=dataset.train)
        variables = tf.trainable_variables()
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            session.run(net.iterator.initializer, {net.first_step: 0})
            before = session.run(variables)
            session.run(net.train_op)
            after, step = session.run([variables, net.global_step])
    assert step == 1
    return {variable.op.name: new - old for variable, new, old in zip(variables, after, before)}


def test_an_overflow_leaves_both_groups_alone(tmp_path):
    """With two rates loss scaling skips the whole update, and the next step counts again."""
    settings = options(tmp_path, loss_scale='dynamic', backbone_rate=0.1)
    dataset = data.load('mnist', settings.data_folder)
    with tf.Graph().as_default():
        net = TrainingGraph(settings, dataset.spec, devices.choose(settings), source=dataset.train)
        bias = next(v for v in net.model.weights if v.name == 'embeddings/bias:0')
        value = tf.placeholder(tf.float32, bias.shape)
        put = tf.assign(bias, value)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            session.run(net.iterator.initializer, {net.first_step: 0})
            before, kept = session.run([net.model.weights, bias])
            session.run(put, {value: np.full(kept.shape, np.inf)})
            session.run(net.train_op)
            session.run(put, {value: kept})
            after, step = session.run([net.model.weights, net.global_step])
            assert step == 0
            for one, other in zip(before, after):
                np.testing.assert_array_equal(one, other)
            session.run(net.train_op)
            assert session.run(net.global_step) == 1


def test_adam_counts_the_steps_of_a_variable_from_its_own_first(tmp_path):
    """With b1 = 0.9, b2 = 0.999 and epsilon 0, the first step of Adam is rate * g / |g|: 1e-3. Had
    it counted the four steps before, it would be rate * sqrt(1 - b2^5) / (1 - b1^5) * 0.1 g /
    sqrt(0.001 g^2) = 5.4e-4 here, and towards 3.2e-3 after a longer rest.
    """
    shared = dict(
        optimizer='adam',
        adam_epsilon=1e-30,
        learning_rate=1e-3,
        freeze='backbone',
        unfreeze_at=4,
        update_centers=4,
    )
    settings = options(tmp_path, steps=4, **shared)
    train(settings)
    before = weights(settings)
    train(options(tmp_path, steps=5, **shared))
    move = np.abs(weights(settings)['dense/kernel'] - before['dense/kernel'])
    assert np.median(move) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    'changes, said',
    [
        ({'unfreeze_at': 4}, '--unfreeze_at: expected variables to unfreeze, those of --freeze'),
        (
            {'unfreeze_at': 4, 'freeze': 'conv1', 'iterations_per_loop': 2},
            '--unfreeze_at: expected --iterations_per_loop=1, .* Received: 2',
        ),
        ({'backbone_rate': 0.0}, '--backbone_rate: expected more than 0. Received: 0'),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        toys.options(tmp_path, **changes)
