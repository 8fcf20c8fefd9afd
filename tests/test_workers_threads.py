"""Whole runs of two workers as threads: replicas that come apart, a rollback, other flags, other
objectives; and fifty steps on MNIST through the launcher.
"""

import subprocess
import sys

import numpy as np
import pytest

import crew
import toys
from callbacks.base import Callback
from gitloss.backend import tf
from helpers import relative_error
from trainers import launch, options, run
from trainers.workers import engines as distribution
from trainers.workers.group import OneWorker


class Upset(Callback):
    """Adds `value` to one weight of one worker after one step, once."""

    def __init__(self, rank, step, value):
        self._where, self._value = (rank, step), value

    def build(self):
        kernels = [variable for variable in tf.trainable_variables() if 'kernel' in variable.name]
        # The last one: behind an earlier one ReLU and pooling may turn NaN into 0.
        kernel = kernels[-1]
        self._change = tf.assign_add(kernel, tf.fill(kernel.shape, self._value))

    def on_train_batch_end(self, batch, logs=None):
        if (self.handle.rank, batch) == self._where:
            self.handle.session.run(self._change)
            self._where = None


def statuses_of(settings, upset):
    """The exit statuses of `trainers.run` on both workers; `upset`: arguments of Upset."""

    def work(group, _):
        return run.main(
            toys.flags_of(settings),
            work=lambda its: crew.trainer_of(its, group, [Upset(*upset)]).fit() and 0,
        )

    return crew.together(2, work)


def test_a_run_whose_replicas_come_apart_ends(tmp_path, capfd):
    """A weight of worker 1 is changed after step 3; with --check_replicas=5, step 5 detects it. One
    line from each worker.
    """
    settings = crew.settings_of(tmp_path, 'apart', evaluate=False)
    assert statuses_of(settings, (1, 3, 1e-3)) == [1, 1]
    lines = [line for line in capfd.readouterr().err.splitlines() if 'the same variables' in line]
    assert len(lines) == 2 and all(
        line.startswith(
            'trainers.run: step 5: expected the same variables on all 2 workers. Received: another '
        )
        and line.endswith(' on worker 1 than on worker 0')
        for line in lines
    ), lines


def test_a_rollback_takes_all_workers_back(tmp_path, capfd):
    """The weights of worker 1 are NaN after step 7, and so is the loss of step 8 on both workers.
    Both go back to step 6, the last multiple of --save_every=3, with half the rate, and end equal.
    Recorded are steps 1 to 7 and 7 to 16: 17 losses, without the NaN.
    """
    settings = options.Options.restored(
        crew.settings_of(tmp_path, 'back', evaluate=False, on_nan='rollback').as_dict(),
        save_every='3',
    )
    assert statuses_of(settings, (1, 7, np.nan)) == [0, 0]
    assert capfd.readouterr().err.count('back to step 6, learning rate now 0.005') == 2
    (losses, mine), (others, its) = (crew.witness(settings.run_dir, rank) for rank in (0, 1))
    assert (
        len(losses) == crew.STEPS + 1
        and np.isfinite(losses).all()
        and others.tolist() == losses.tolist()
    )
    assert {name: value.tobytes() for name, value in mine.items()} == {
        name: value.tobytes() for name, value in its.items()
    }


def test_other_flags_on_a_worker_are_one_line(tmp_path, capfd):
    """The chief fails after it has broadcast its flags: its next collective would wait for the
    worker that has ended.
    """
    settings = crew.settings_of(tmp_path, 'flags', evaluate=False)

    def work(group, _):
        def train(its):
            decide = group.decide
            if group.is_chief:
                group.decide = lambda *args: decide(*args) and {}['told']
            crew.trainer_of(its, group).fit()

        return run.main(
            toys.flags_of(settings) + [f'--alpha={0.5 - 0.1 * group.rank:g}'], work=train
        )

    chiefs, status = crew.together(2, work)
    assert isinstance(chiefs, KeyError) and status == 2
    assert (
        'trainers.run: worker 1: expected the flags of worker 0. Received: --alpha (was 0.5, is '
        '0.4)\n' in capfd.readouterr().err
    )


SOFTMAX_ALONE = {'lambda_c': 0.0, 'lambda_g': 0.0}


@pytest.mark.parametrize(
    'device, objective',
    [
        ('cpu', {'git_loss_form': 'pairwise', 'loss_scale': '1024'}),
        ('cpu', {'distance': 'cosine', 'center_init': 'means'}),
        ('cpu', dict(SOFTMAX_ALONE, head='arcface', scale=8.0, loss_scale='dynamic')),
        # In the order that NCCL needs.
        ('gpu', SOFTMAX_ALONE),
    ],
)
def test_one_step_of_another_objective(tmp_path, device, objective, monkeypatch):
    """All variables after one step, among them the momentum slots, which are the gradients; several
    reductions.
    """
    monkeypatch.setattr(distribution, 'BUCKET', 1 << 16)
    one, two = (
        crew.settings_of(tmp_path, name, embedding_dim=16, **objective) for name in ('one', 'two')
    )
    one, two = (
        options.Options.restored(settings.as_dict(), steps=1, update_centers=1)
        for settings in (one, two)
    )
    crew.trainer_of(one, OneWorker()).fit()
    ended = crew.together(2, lambda group, _: crew.trainer_of(two, group).fit(), device=device)
    assert not [error for error in ended if isinstance(error, Exception)]
    mine, its = crew.saved(one, 1), crew.saved(two, 1)
    assert set(mine) == set(its)
    for name, value in mine.items():
        assert relative_error(its[name], value) <= 1e-6, name


def test_fifty_steps_on_mnist(tmp_path):
    """The real images, through the launcher. float32 sums in another order, (a + b) + (c + d) for
    ((a + b) + c) + d, differ in the last bit, and training amplifies every difference: 1e-7 in the
    first loss may become 1e-4 after 50 steps here. The growth depends on the settings, not on the
    workers: one worker whose initial weights are changed in the last bit drifts as far; with Adam
    up to 1e-2, because it divides by the size of a gradient that is pure rounding error where it
    should be 0. Hence momentum.
    """
    changes = {
        'steps': 50,
        'batch_size': 16,
        'update_centers': 50,
        'embedding_dim': 16,
        'optimizer': 'momentum',
        'learning_rate': 0.008,
        'evaluate': False,
        'device': 'cpu',
    }
    one, two = (
        options.Options(exp_save_dir=str(tmp_path / name), **changes) for name in ('one', 'two')
    )
    crew.trainer_of(one).fit()
    command = (
        ['--workers=2', f'--log_dir={tmp_path}', '--']
        + toys.flags_of(two)
        + [f'--callbacks={crew.PROGRAM[0]}:Witness']
    )
    assert (
        subprocess.run(
            [sys.executable, '-m', 'trainers.launch'] + command,
            cwd=launch.ROOT,
            stdin=subprocess.DEVNULL,
            timeout=crew.WAIT,
        ).returncode
        == 0
    )
    losses, others = (crew.witness(settings.run_dir, 0)[0] for settings in (one, two))
    assert len(losses) == 50 and losses[-5:].mean() < losses[:5].mean() - 0.02
    np.testing.assert_allclose(others[0], losses[0], rtol=1e-6)
    np.testing.assert_allclose(others, losses, rtol=1e-3)


@pytest.mark.skipif(tf.__version__.startswith('1.'), reason='bfloat16 is of TensorFlow 2')
def test_a_worker_computes_convolutions_with_a_bias_in_bfloat16():
    """relu(9 * 1 + 1) = 10 inside an image of ones: TensorFlow would fuse the three operations into
    one that a server refuses.
    """

    def work(_, open_session):
        ones = tf.Variable(tf.ones([2, 8, 8, 16]), use_resource=True, dtype=tf.float32)
        kernel, bias = tf.ones([3, 3, 16, 16]) / 16, tf.ones([16])
        images, kernel, bias = (tf.cast(one, tf.bfloat16) for one in (ones, kernel, bias))
        sums = tf.nn.bias_add(tf.nn.conv2d(images, kernel, [1, 1, 1, 1], 'SAME'), bias)
        with open_session() as session:
            session.run(ones.initializer)
            return session.run(tf.cast(tf.nn.relu(sums), tf.float32))[0, 4, 4, 0]

    assert crew.together(1, work, dtype='bfloat16') == [10.0]
