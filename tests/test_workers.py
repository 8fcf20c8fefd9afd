"""Runs of two and three processes over loopback against a run of one: the same gradients, weights,
centers and measurements.

The tests share the runs, because each costs two or three starts of TensorFlow. Tests that need no
separate processes have threads as workers.
"""

import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import crew
import survival
import toys
from callbacks.base import Callback
from helpers import relative_error
from trainers import checkpoints, launch, options, run
from trainers.workers import engines as distribution
from trainers.workers.group import OneWorker

STEPS, EVERY, BATCH = 16, 8, 12
STOPPED = 10  # a signal ends the run of three here
TIMEOUT = 4.0  # of the run in which a worker hangs
# Who is to get which signal after which step; the run is started again each time.
FAILURES = ((1, signal.SIGSTOP, 3), (1, signal.SIGKILL, 7), (0, signal.SIGKILL, 10))
LONELY = 0.3  # --collective_timeout of the worker that waits for one that never comes


def settings_of(folder, name, **changes):
    """After one step the momentum slots are the gradients: 0.9 * 0 + g. 12 validation images are
    one batch, 108 training images nine, 40 test images three and a third: the last batch is padded.
    """
    return toys.options(
        folder,
        exp_save_dir=os.path.join(str(folder), name),
        steps=STEPS,
        update_centers=EVERY,
        batch_size=BATCH,
        optimizer='momentum',
        learning_rate=0.01,
        save_every='1',
        keep_checkpoints=STEPS + 1,
        check_replicas=5,
        **changes,
    )


def checkpoint(settings, step):
    return survival.tensors(
        checkpoints.read(os.path.join(settings.run_dir, 'ckpt', f'step-{step:08}'))
    )


class Runs:
    """One worker in this process; two; three, with signals; two that hang, die and restart; and one
    alone.
    """

    def __init__(self, folder):
        self.folder = folder
        self.one = settings_of(folder, 'one')
        self.several = {size: settings_of(folder, f'of{size}') for size in (2, 3)}
        self.disturbed = settings_of(folder, 'disturbed')
        self.regrouped = {size: settings_of(folder, f'goes-on-with-{size}') for size in (1, 3)}
        self.statuses, self.ended, self.seconds = {}, {}, {}
        crew.trainer_of(self.one).fit()
        # Half of the time is spent waiting for time-outs.
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            for part in [
                pool.submit(part) for part in (self.disturb, self.train, self.leave_alone)
            ]:
                part.result()
        crew.trainer_of(self.regrouped[1]).fit()
        self.regrouped_logs = crew.together(
            3, lambda group, _: crew.trainer_of(self.regrouped[3], group).fit()
        )

    def crew(self, settings, size=2, *flags):
        return crew.Crew(toys.flags_of(settings) + list(flags), size, settings.run_dir + '.logs')

    def train(self):
        """Two workers to the end; three until worker 1 gets SIGTERM."""
        for size, settings in self.several.items():
            with self.crew(settings, size) as workers:
                if size == 3:
                    workers.until(self.reached(settings, STOPPED))
                    workers.processes[1].send_signal(signal.SIGTERM)
                self.statuses[size] = workers.wait()

    @staticmethod
    def reached(settings, step):
        path = os.path.join(settings.run_dir, 'ckpt', f'step-{step:08}')
        return lambda: os.path.isdir(path)

    def disturb(self):
        """Runs the FAILURES. The last checkpoint is then continued by one worker and by three, in
        copies, and by two in the run itself.
        """
        for failure in FAILURES:
            rank, signum, step = failure
            flags = [f'--collective_timeout={TIMEOUT:g}'] if signum == signal.SIGSTOP else []
            with self.crew(self.disturbed, 2, *flags) as workers:
                workers.until(self.reached(self.disturbed, step))
                workers.processes[rank].send_signal(signum)
                start = time.monotonic()
                self.ended[failure] = workers.wait(but=rank if signum == signal.SIGSTOP else None)
                self.seconds[failure] = time.monotonic() - start
        for settings in self.regrouped.values():
            shutil.copytree(self.disturbed.run_dir, settings.run_dir)
        with self.crew(self.disturbed) as workers:
            self.statuses['disturbed'] = workers.wait()

    def leave_alone(self):
        """The chief of two workers, the other of which never starts."""
        settings = settings_of(self.folder, 'alone', collective_timeout=LONELY)
        config = {
            'cluster': {'worker': launch.free_addresses(2)},
            'task': {'type': 'worker', 'index': 0},
        }
        self.alone = subprocess.run(
            [sys.executable] + list(crew.PROGRAM) + toys.flags_of(settings),
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=dict(os.environ, TF_CONFIG=json.dumps(config)),
            timeout=crew.WAIT,
        )


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp('workers'))


@pytest.mark.parametrize('size', [2, 3])
def test_one_step_of_several_workers_is_the_step_of_one(runs, size):
    """Gradients (the slots), weights, centers and the counts of samples agree to 1e-6 of the
    largest value of each tensor. The centers start at zero and have moved.
    """
    mine, its = checkpoint(runs.one, 1), checkpoint(runs.several[size], 1)
    assert set(mine) == set(its) and sum(name.endswith('/Momentum') for name in mine) >= 17
    for name, value in mine.items():
        assert relative_error(its[name], value) <= 1e-6, name
    assert np.abs(mine['center_loss/centers']).max() > 1e-3


@pytest.mark.parametrize('size', [2, 3])
def test_replicas_are_equal_to_the_last_bit(runs, size):
    losses, variables = crew.witness(runs.several[size].run_dir, 0)
    assert len(losses) >= STOPPED
    for rank in range(1, size):
        others, values = crew.witness(runs.several[size].run_dir, rank)
        assert others.tolist() == losses.tolist()
        assert {name: value.tobytes() for name, value in values.items()} == {
            name: value.tobytes() for name, value in variables.items()
        }


@pytest.mark.parametrize('size', [2, 3])
def test_losses_and_measurements_are_those_of_one_worker(runs, size):
    """Sweeps over the training, validation and test images, the padded last batch of the test
    images included.
    """
    mine, its = survival.history(runs.one.run_dir), survival.history(runs.several[size].run_dir)
    assert [row['step'] for row in its] == ([8, 16] if size == 2 else [8])
    for row, other in zip(survival.timeless(mine), survival.timeless(its)):
        assert other == pytest.approx(row, rel=2e-4, abs=1e-6)
    losses, all_losses = (
        crew.witness(settings.run_dir, 0)[0] for settings in (runs.several[size], runs.one)
    )
    np.testing.assert_allclose(losses, all_losses[: len(losses)], rtol=1e-3)


def test_the_chief_alone_writes(runs):
    """Two workers leave the files of one, and the witness of the other."""
    assert survival.files(runs.several[2].run_dir) - survival.files(runs.one.run_dir) == {
        'witness-1.npz'
    }


def test_a_signal_to_one_worker_ends_all_after_one_step_with_a_checkpoint(runs):
    """All three stop at the same step, that of the last checkpoint."""
    assert runs.statuses == {2: [0, 0], 3: [143] * 3, 'disturbed': [0, 0]}
    losses = [crew.witness(runs.several[3].run_dir, rank)[0] for rank in range(3)]
    assert STOPPED <= len(losses[0]) == len(losses[1]) == len(losses[2]) < STEPS
    newest = checkpoints.CheckpointStore(os.path.join(runs.several[3].run_dir, 'ckpt')).newest()
    assert newest.step == len(losses[0])


@pytest.mark.parametrize('failure', FAILURES)
def test_a_worker_that_dies_or_hangs_ends_the_other_in_time(runs, failure):
    """A worker that hangs is given up after --collective_timeout. The death of one, the chief too,
    is noticed in two seconds, whatever the time-out, 60 s here; 5 s more are allowed for a busy
    machine.
    """
    rank, signum, _ = failure
    its = -signal.SIGKILL if signum == signal.SIGKILL else None
    assert runs.ended[failure] == ([1, its] if rank else [its, 1])
    assert runs.seconds[failure] < TIMEOUT + 5


def test_a_worker_that_never_comes_is_waited_for_ten_times_as_long(runs):
    """The line is the last one, the status 1: 10 * 0.3 s, printed without decimals."""
    said = runs.alone.stderr.decode().splitlines()[-1]
    assert runs.alone.returncode == 1
    assert said.startswith(
        'start: expected an answer from all 2 workers. Received: nothing for 3 s; worker 1 at '
        '127.0.0.1:'
    ), said


def test_the_run_started_again_equals_the_undisturbed_one_to_the_last_bit(runs):
    assert survival.differences(runs.disturbed.run_dir, runs.several[2].run_dir) == []


@pytest.mark.parametrize('size', [1, 3])
def test_a_run_of_two_workers_goes_on_with_fewer_or_more(runs, size):
    """It continues from the last checkpoint with the same global batches: the losses are those of
    one worker from the start, up to rounding.
    """
    assert not [error for error in runs.regrouped_logs if isinstance(error, Exception)]
    losses, _ = crew.witness(runs.regrouped[size].run_dir, 0)
    assert 0 < len(losses) <= STEPS - FAILURES[-1][2]
    np.testing.assert_allclose(
        losses, crew.witness(runs.one.run_dir, 0)[0][-len(losses) :], rtol=1e-3
    )


# --- whole runs of threads ------------------------------------------------------------------------


class Upset(Callback):
    """Adds `value` to one weight of one worker after one step, once."""

    def __init__(self, rank, step, value):
        self._where, self._value = (rank, step), value

    def build(self):
        from gitloss.backend import tf

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
    settings = settings_of(tmp_path, 'apart', evaluate=False)
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
        settings_of(tmp_path, 'back', evaluate=False, on_nan='rollback').as_dict(), save_every='3'
    )
    assert statuses_of(settings, (1, 7, np.nan)) == [0, 0]
    assert capfd.readouterr().err.count('back to step 6, learning rate now 0.005') == 2
    (losses, mine), (others, its) = (crew.witness(settings.run_dir, rank) for rank in (0, 1))
    assert (
        len(losses) == STEPS + 1
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
    settings = settings_of(tmp_path, 'flags', evaluate=False)

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
        settings_of(tmp_path, name, embedding_dim=16, **objective) for name in ('one', 'two')
    )
    one, two = (
        options.Options.restored(settings.as_dict(), steps=1, update_centers=1)
        for settings in (one, two)
    )
    crew.trainer_of(one, OneWorker()).fit()
    ended = crew.together(2, lambda group, _: crew.trainer_of(two, group).fit(), device=device)
    assert not [error for error in ended if isinstance(error, Exception)]
    mine, its = checkpoint(one, 1), checkpoint(two, 1)
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
