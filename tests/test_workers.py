"""Runs of two and three processes over loopback against a run of one: the same gradients, weights,
centers and measurements.

The tests share the runs, because each costs two or three starts of TensorFlow. Tests that need no
separate processes have threads as workers: test_workers_threads.py.
"""

import concurrent.futures
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest

import crew
import forking
import survival
import toys
from helpers import relative_error
from trainers import checkpoints, launch

STOPPED = 10  # a signal ends the run of three here


TIMEOUT = 4.0  # of the run in which a worker hangs


# Who is to get which signal after which step; the run is started again each time.
FAILURES = ((1, signal.SIGSTOP, 3), (1, signal.SIGKILL, 7), (0, signal.SIGKILL, 10))


LONELY = 0.3  # --collective_timeout of the worker that waits for one that never comes


class Runs:
    """One worker in this process; two; three, with signals; two that hang, die and restart; and one
    alone.
    """

    def __init__(self, folder):
        self.folder = folder
        self.one = crew.settings_of(folder, 'one')
        self.several = {size: crew.settings_of(folder, f'of{size}') for size in (2, 3)}
        self.disturbed = crew.settings_of(folder, 'disturbed')
        self.regrouped = {size: crew.settings_of(folder, f'goes-on-with-{size}') for size in (1, 3)}
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
        settings = crew.settings_of(self.folder, 'alone', collective_timeout=LONELY)
        config = {
            'cluster': {'worker': launch.free_addresses(2)},
            'task': {'type': 'worker', 'index': 0},
        }
        self.alone = forking.run(
            [*crew.PROGRAM, *toys.flags_of(settings)],
            self.folder,
            dict(os.environ, TF_CONFIG=json.dumps(config)),
            crew.WAIT,
        )


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp('workers'))


@pytest.mark.parametrize('size', [2, 3])
def test_one_step_of_several_workers_is_the_step_of_one(runs, size):
    """Gradients (the slots), weights, centers and the counts of samples agree to 1e-6 of the
    largest value of each tensor. The centers start at zero and have moved.
    """
    mine, its = crew.saved(runs.one, 1), crew.saved(runs.several[size], 1)
    assert set(mine) == set(its) and sum(name.endswith('/Momentum') for name in mine) == 9
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
    assert STOPPED <= len(losses[0]) == len(losses[1]) == len(losses[2]) < crew.STEPS
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
    said = runs.alone.stderr.splitlines()[-1]
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
    assert 0 < len(losses) <= crew.STEPS - FAILURES[-1][2]
    np.testing.assert_allclose(
        losses, crew.witness(runs.one.run_dir, 0)[0][-len(losses) :], rtol=1e-3
    )
