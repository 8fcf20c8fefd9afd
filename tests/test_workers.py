"""Runs of two and three processes over loopback against the run of one: the same gradients, weights, centers and measurements.

The runs are shared by the tests: each costs two or three starts of TensorFlow.
"""
import concurrent.futures
import os
import shutil
import signal
import time

import numpy as np
import pytest

import crew
import survival
import toys
from helpers import relative_error
from trainers import checkpoints, options

STEPS, EVERY, BATCH = 16, 8, 12
STOPPED = 10  # the run of three ends here by a signal
TIMEOUT = 4.0  # of the run in which one hangs


def settings_of(folder, name, **changes):
    """The momentum's slots after one step are the gradients themselves: 0.9 * 0 + g. 12 validation images are one batch, 108 training
    images nine, 40 test images three and a third: the last one is padded."""
    return toys.options(folder, exp_save_dir=os.path.join(str(folder), name), steps=STEPS, update_centers=EVERY, batch_size=BATCH,
                        optimizer='momentum', learning_rate=0.01, save_every='1', keep_checkpoints=STEPS + 1, check_replicas=5, **changes)


def checkpoint(settings, step):
    return survival.tensors(checkpoints.read(os.path.join(settings.run_dir, 'ckpt', 'step-%08d' % step)))


class Runs:
    """One worker in this process; two; three, which are signalled; and two that hang, die and start again."""

    def __init__(self, folder):
        self.folder = folder
        self.one = settings_of(folder, 'one')
        self.several = {size: settings_of(folder, 'of%d' % size) for size in (2, 3)}
        self.disturbed = settings_of(folder, 'disturbed')
        self.regrouped = {size: settings_of(folder, 'goes-on-with-%d' % size) for size in (1, 3)}
        self.statuses, self.ended, self.seconds = {}, {}, {}
        crew.trainer_of(self.one).fit()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:  # half of the time one waits for a time-out
            for part in [pool.submit(part) for part in (self.disturb, self.train)]:
                part.result()
        crew.trainer_of(self.regrouped[1]).fit()

    def crew(self, settings, size=2, *flags):
        return crew.Crew(toys.flags_of(settings) + list(flags), size, settings.run_dir + '.logs')

    def train(self):
        """Two to the end; three until worker 1 gets SIGTERM."""
        for size, settings in self.several.items():
            with self.crew(settings, size) as workers:
                if size == 3:
                    workers.until(self.reached(settings, STOPPED))
                    workers.processes[1].send_signal(signal.SIGTERM)
                self.statuses[size] = workers.wait()

    @staticmethod
    def reached(settings, step):
        path = os.path.join(settings.run_dir, 'ckpt', 'step-%08d' % step)
        return lambda: os.path.isdir(path)

    def disturb(self):
        """To worker 1 SIGSTOP after step 3, SIGKILL after step 7; of what is then there one copy is to go on with one worker, another goes
        on with three, the run itself with two."""
        for signum, step in ((signal.SIGSTOP, 3), (signal.SIGKILL, 7)):
            flags = ['--collective_timeout=%g' % TIMEOUT] if signum == signal.SIGSTOP else []
            with self.crew(self.disturbed, 2, *flags) as workers:
                workers.until(self.reached(self.disturbed, step))
                workers.processes[1].send_signal(signum)
                start = time.monotonic()
                self.ended[signum] = workers.wait(but=1 if signum == signal.SIGSTOP else None)
                self.seconds[signum] = time.monotonic() - start
        for settings in self.regrouped.values():
            shutil.copytree(self.disturbed.run_dir, settings.run_dir)
        for settings, size in ((self.disturbed, 2), (self.regrouped[3], 3)):
            with self.crew(settings, size) as workers:
                self.statuses[settings.run_name] = workers.wait()


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp('workers'))


@pytest.mark.parametrize('size', [2, 3])
def test_one_step_of_several_workers_is_the_step_of_one(runs, size):
    """Gradients (the slots), weights, centers and the counts of samples, to 1e-6 of each tensor's largest value. The centers begin at zero
    and have moved."""
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
        assert {name: value.tobytes() for name, value in values.items()} == {name: value.tobytes() for name, value in variables.items()}


@pytest.mark.parametrize('size', [2, 3])
def test_losses_and_measurements_are_those_of_one_worker(runs, size):
    """Sweeps over the training, validation and test images, the padded last batch of the test images included."""
    mine, its = survival.history(runs.one.run_dir), survival.history(runs.several[size].run_dir)
    assert [row['step'] for row in its] == ([8, 16] if size == 2 else [8])
    for row, other in zip(survival.timeless(mine), survival.timeless(its)):
        assert other == pytest.approx(row, rel=2e-4, abs=1e-6)
    losses, all_losses = (crew.witness(settings.run_dir, 0)[0] for settings in (runs.several[size], runs.one))
    np.testing.assert_allclose(losses, all_losses[:len(losses)], rtol=1e-3)


def test_the_chief_alone_writes(runs):
    """What two workers leave is what one leaves, and the witness of the other."""
    assert survival._files(runs.several[2].run_dir) - survival._files(runs.one.run_dir) == {'witness-1.npz'}


def test_a_signal_to_one_worker_ends_all_after_one_step_with_a_checkpoint(runs):
    """All three count as many steps, which is where the last checkpoint is."""
    assert runs.statuses == {2: [0, 0], 3: [143] * 3, 'disturbed': [0, 0], 'goes-on-with-3': [0] * 3}
    losses = [crew.witness(runs.several[3].run_dir, rank)[0] for rank in range(3)]
    assert STOPPED <= len(losses[0]) == len(losses[1]) == len(losses[2]) < STEPS
    newest = checkpoints.CheckpointStore(os.path.join(runs.several[3].run_dir, 'ckpt')).newest()
    assert newest.step == len(losses[0])


@pytest.mark.parametrize('signum', [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_ends_the_other_in_time(runs, signum):
    """Who hangs is given up after --collective_timeout; that one has died is seen in two seconds, whatever the time-out, 60 s here. Another
    5 s for a machine that does other things."""
    assert runs.ended[signum] == [1, -signal.SIGKILL if signum == signal.SIGKILL else None]
    assert runs.seconds[signum] < TIMEOUT + 5


def test_the_run_started_again_equals_the_undisturbed_one_to_the_last_bit(runs):
    assert survival.differences(runs.disturbed.run_dir, runs.several[2].run_dir) == []


@pytest.mark.parametrize('size', [1, 3])
def test_a_run_of_two_workers_goes_on_with_fewer_or_more(runs, size):
    """It begins where the killed one got to and sees the same global batches: the losses are those of one worker from the start, to
    rounding."""
    losses, _ = crew.witness(runs.regrouped[size].run_dir, 0)
    assert 0 < len(losses) <= STEPS - 7
    np.testing.assert_allclose(losses, crew.witness(runs.one.run_dir, 0)[0][-len(losses):], rtol=1e-3)


def test_fifty_steps_on_mnist(tmp_path):
    """The real images. float32 sums in another order, (a + b) + (c + d) for ((a + b) + c) + d, differ in the last bit, and training carries
    every difference on: 1e-7 in the first loss may be 1e-4 after 50 steps here. How fast it grows is the recipe's matter, not the
    workers': one worker whose initial weights are changed in the last bit drifts as far, under Adam to 1e-2, which divides by the size of
    a gradient that is all rounding where it should be 0. Hence momentum."""
    changes = dict(steps=50, batch_size=16, update_centers=50, embedding_dim=16, optimizer='momentum', learning_rate=0.008, evaluate=False,
                   device='cpu')
    one, two = (options.Options(exp_save_dir=str(tmp_path / name), **changes) for name in ('one', 'two'))
    crew.trainer_of(one).fit()
    with crew.Crew(toys.flags_of(two), 2, tmp_path / 'logs') as workers:
        assert workers.wait() == [0, 0]
    losses, others = (crew.witness(settings.run_dir, 0)[0] for settings in (one, two))
    assert len(losses) == 50 and losses[-5:].mean() < losses[:5].mean() - 0.02
    np.testing.assert_allclose(others[0], losses[0], rtol=1e-6)
    np.testing.assert_allclose(others, losses, rtol=1e-3)
