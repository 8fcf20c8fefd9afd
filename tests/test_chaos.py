"""Runs that are killed, interrupted by signals or out of disk space, and restarted by the same
command: they end as if undisturbed.
"""

import concurrent.futures
import contextlib
import errno
import itertools
import os
import random
import re
import signal
import time

import numpy as np
import pytest

import killable
import survival
import toys
from callbacks.centers import CenterMeasurement
from callbacks.evaluation import Evaluation
from callbacks.history import History
from handles import FakeHandle
from helpers import Points
from trainers import checkpoints, run

STEPS, EVERY, SAVE_EVERY = 40, 20, 7


def flags(folder, name):
    """Of the published network: a signal meets its slow steps."""
    return toys.flags_of(
        toys.options(
            folder,
            exp_save_dir=os.path.join(folder, name),
            steps=STEPS,
            update_centers=EVERY,
            save_every=str(SAVE_EVERY),
            **{'log_every': 10, 'model': 'mnist_cnn'},
        )
    )


class Story:
    """The outcomes of all runs of this file, two at a time: each takes a core and mostly waits for
    imports.
    """

    def __init__(self, folder):
        self.folder = folder
        flags(folder, 'twin')  # creates the data before two processes would
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for part in [
                pool.submit(part)
                for part in (self.kills, self.signals, self.twin, self.second_signal)
            ]:
                part.result()

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, name, plan=None):
        os.makedirs(self.path('of ' + name), exist_ok=True)
        return killable.Run(flags(self.folder, name), self.path('of ' + name), plan, forked=True)

    def twin(self):
        self.twin_status = self.start('twin').wait()

    def kills(self):
        """A kill half way through the manifest of the third checkpoint (steps 0, 7, 14), then at
        two instants chosen by the seed.
        """
        chance = random.Random(4)
        dying = self.start('killed', {'die_in_save': 3})
        self.moments = [dying.marks.moment if dying.wait() == -signal.SIGKILL else None]
        self.half_written = sorted(os.listdir(os.path.join(self.path('killed'), 'ckpt')))
        for moment, count, span in (
            ('step', chance.randrange(4, 12), 0.05),
            ('measurement', 1, 0.5),
        ):
            self.moments.append(
                self.start('killed', {}).kill(moment, count, chance.uniform(0, span))
            )
        last = self.start('killed')
        self.killed_status = last.wait(), last.printed()

    def signals(self):
        """SIGTERM in the first part, SIGINT in the second, then to the end."""
        self.stopped = {}
        for signum, step in ((signal.SIGTERM, 12), (signal.SIGINT, 9)):
            one = self.start('signalled', {})
            reached = one.until(lambda one=one, step=step: one.marks.count('step') > step)
            one.send(signum)
            status = one.wait()
            newest = checkpoints.CheckpointStore(
                os.path.join(self.path('signalled'), 'ckpt')
            ).newest()
            self.stopped[signum] = (
                reached,
                status,
                one.printed(),
                one.marks.count('step') - 1,
                newest.step,
            )
        self.signalled_status = self.start('signalled').wait()

    def second_signal(self):
        """The fifth step takes minutes: the first signal is recorded, the second one ends the
        process at once.
        """
        one = self.start('twice', {'sleep_in_step': 5})
        one.until(lambda: one.marks.count('step') == 6)
        one.send(signal.SIGTERM)
        one.until(lambda: 'once more ends the process' in one.printed())
        one.send(signal.SIGTERM)
        self.twice = one.wait(), one.printed()


@pytest.fixture(scope='module')
def story(tmp_path_factory):
    return Story(str(tmp_path_factory.mktemp('chaos')))


def test_a_run_killed_three_times_ends_as_if_undisturbed(story):
    """Weights, slots, centers, sums, callback states, history and scalars are equal to the last
    bit; no file is missing or left over.
    """
    assert story.twin_status == 0
    assert story.killed_status[0] == 0, story.killed_status[1]
    assert story.moments[0] == 'checkpoint write' and None not in story.moments
    assert survival.differences(story.path('killed'), story.path('twin')) == []
    assert [row['step'] for row in survival.history(story.path('killed'))] == [20, 40]


def test_the_kill_in_the_checkpoint_left_half_of_it(story):
    """Its name is not that of a checkpoint, and the next save removes it."""
    assert story.half_written == ['step-00000000', 'step-00000007', 'step-00000014.tmp']
    assert not [name for name in survival.files(story.path('killed')) if '.tmp' in name]


def test_tensorboard_itself_reads_the_same_scalars(story):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    for name in ('killed', 'twin'):
        events = accumulator.EventAccumulator(story.path(name), {'scalars': 0}).Reload()
        assert {
            tag: {event.step: [event.value] for event in events.Scalars(tag)}
            for tag in events.Tags()['scalars']
        } == survival.scalars(story.path(name))


@pytest.mark.parametrize('signum, status', [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_last_whole_step_and_says_so_in_a_line(story, signum, status):
    reached, found, printed, step, saved = story.stopped[signum]
    assert reached and found == status, printed
    lines = printed.splitlines()
    assert lines[-1] == f'trainers.run: stopped by {signum.name}'
    assert lines[-2].startswith(f'{signum.name}: saving after this step') or re.match(
        'step ', lines[-2]
    )
    assert 'Traceback' not in printed and sum('stopped by' in line for line in lines) == 1
    assert step % SAVE_EVERY == 0 or saved > 0
    already = 0 if signum == signal.SIGTERM else story.stopped[signal.SIGTERM][4]
    assert saved == already + step


def test_a_run_stopped_by_signals_ends_as_if_undisturbed(story):
    assert story.signalled_status == 0
    assert survival.differences(story.path('signalled'), story.path('twin')) == []


def test_the_second_signal_ends_the_process_at_once(story):
    status, printed = story.twice
    assert status == -signal.SIGTERM and 'Traceback' not in printed and 'stopped by' not in printed
    newest = checkpoints.CheckpointStore(os.path.join(story.path('twice'), 'ckpt')).newest()
    assert newest.step == 0  # of --save_every; the unfinished step is lost


# --- a full disk ----------------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk(monkeypatch, where, room):
    """After `room` calls os.fsync fails for paths below a folder."""
    calls, fsync = [], os.fsync

    def failing(descriptor):
        if os.readlink(f'/proc/self/fd/{descriptor}').startswith(where):
            calls.append(descriptor)
            if len(calls) > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', failing)
        yield


@contextlib.contextmanager
def jumping_clock(monkeypatch):
    now, days = time.time, itertools.cycle((0, -86400, 86400))
    with monkeypatch.context() as patch:
        patch.setattr(time, 'time', lambda: now() + next(days))
        yield


def test_a_full_disk_costs_checkpoints_and_not_the_training(story, monkeypatch, capsys):
    """Five calls of fsync per checkpoint: three files, their folder, its parent. There is room for
    those of steps 0, 7 and 14, not later. The run goes on to its end and keeps those three; each
    failed save logs one line, and the exit status is 1. With room again the same command finishes
    it, though the clock now jumps back and forth by a day: equal to an undisturbed run.
    """
    arguments = flags(story.folder, 'starved')
    folder = os.path.join(story.path('starved'), 'ckpt')
    with full_disk(monkeypatch, folder, 15):
        assert run.main(arguments) == 1
    printed = capsys.readouterr().err
    lost = re.findall(
        r'no checkpoint at step (\d+): .* No space left on device; the ones before stay', printed
    )
    assert [int(step) for step in lost] == [20, 21, 28, 35, 40]
    assert 'the last checkpoint could not be written' in printed and 'Traceback' not in printed
    assert sorted(os.listdir(folder)) == ['step-00000000', 'step-00000007', 'step-00000014']
    assert checkpoints.CheckpointStore(folder).newest().step == 14
    with jumping_clock(monkeypatch):
        assert run.main(arguments) == 0
    assert survival.differences(story.path('starved'), story.path('twin')) == []


def test_a_measurement_that_is_broken_off_leaves_no_trace_in_the_state():
    """Later changes do not alter what `state` returned before."""
    split = Points(np.eye(3, 2, dtype=np.float32), np.arange(3, dtype=np.int32))
    history, centers = History(), CenterMeasurement(split)
    before = history.state()['rows'], centers.state()
    history.rows.append({'step': 1})
    centers.handle = FakeHandle()
    centers.on_epoch_end(1, {})
    assert before == ([], []) and len(centers.state()) == 1


def test_a_run_continued_at_its_end_has_embeddings_to_draw():
    split = Points(np.ones((6, 2), np.float32), np.zeros(6, np.int32))
    evaluation, logs = Evaluation(split), {}
    evaluation.handle = FakeHandle()
    evaluation.on_train_end(logs)
    assert (
        evaluation.embeddings.shape == (6, 2)
        and evaluation.predictions.tolist() == [0] * 6
        and logs == {}
    )
