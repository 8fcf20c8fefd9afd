"""How a sweep runs its cells: at once, with their share of the cores, past failures and signals."""

import json
import os
import re
import signal
import threading
import time

import pytest

from gitloss.errors import log
from trainers import launch
from trainers.options import parse
from trainers.sweeping import grid, runner


def cells(tmp_path, text='seed=1..4', *flags):
    return grid.cells(parse([f'--grid={text}', *flags], 'trainers.sweep'), str(tmp_path / 'runs'))


def run(tmp_path, program, jobs=2, chosen=None):
    """(return value, [(name, reason)] in the order of their ends). The program has the flags in
    `sys.argv` and the folder `out` as `out`.
    """
    logs = tmp_path / 'logs'
    logs.mkdir(exist_ok=True)
    (tmp_path / 'out').mkdir(exist_ok=True)
    begin = f'import json, os, sys, time; out = {str(tmp_path / "out")!r}; '
    begin += 'seed = next((a[7:] for a in sys.argv if a.startswith("--seed=")), "1"); '
    ended = []
    work = runner.Runner(
        chosen or cells(tmp_path),
        str(logs),
        jobs,
        lambda cell, reason: ended.append((cell.settings['seed'], reason)),
        ('-c', begin + program),
    )
    return work.run(), ended


def read(path):
    return json.loads(path.read_text())


def test_two_run_at_once_on_cores_of_their_own(tmp_path):
    """Each waits until another one has begun, which one after another never would."""
    program = (
        'open(f"{out}/{seed}", "w").write("");\n'
        'while len(os.listdir(out)) < 2: time.sleep(0.01)\n'
        'time.sleep(0.3)\n'
        'open(f"{out}/{seed}", "w").write(json.dumps(sorted(os.sched_getaffinity(0))))'
    )
    status, ended = run(tmp_path, program)
    assert status == 0 and sorted(ended) == [(seed, '') for seed in (1, 2, 3, 4)]
    found = [set(read(tmp_path / 'out' / str(seed))) for seed in (1, 2, 3, 4)]
    cores = sorted(os.sched_getaffinity(0))
    assert all(len(one) == max(1, len(cores) // 2) for one in found)
    if len(cores) > 1:
        assert not found[0] & found[1]


def test_one_that_fails_does_not_stop_the_others_and_says_why(tmp_path):
    """Seed 2 ends with a line of trainers.run, seed 3 is killed."""
    program = (
        'print("step 3/9 "); '
        'seed == "2" and sys.exit("trainers.run: --x: expected y. Received: z"); '
        'seed == "3" and os.kill(os.getpid(), 9)'
    )
    status, ended = run(tmp_path, program)
    reasons = dict(ended)
    assert status == 0 and (reasons[1], reasons[4]) == ('', '')
    assert reasons[2] == 'trainers.run: --x: expected y. Received: z'
    assert reasons[3].startswith('ended with status 137')
    assert (tmp_path / 'logs' / 'seed=2.log').read_text().endswith('Received: z\n')


def test_a_signal_reaches_the_runs_which_may_save(tmp_path):
    """SIGTERM to this process: both that run get it, end by themselves, and no other begins.
    Neither has failed.
    """
    program = (
        'import signal; signal.signal(15, lambda *_: (open(f"{out}/{seed}.saved", "w"), '
        'os._exit(143)));\n'
        'open(f"{out}/{seed}.begun", "w")\n'
        'time.sleep(60)'
    )

    def send():
        limit = time.monotonic() + 50
        while len(list((tmp_path / 'out').glob('*.begun'))) < 2 and time.monotonic() < limit:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    sender = threading.Thread(target=send)
    (tmp_path / 'out').mkdir()
    sender.start()
    status, ended = run(tmp_path, program)
    sender.join()
    assert status == signal.SIGTERM and signal.getsignal(signal.SIGTERM) == before
    saved = sorted(path.name for path in (tmp_path / 'out').glob('*.saved'))
    assert saved == ['1.saved', '2.saved'] and ended == []


def test_progress_counts_runs_and_estimates_the_rest(tmp_path, monkeypatch):
    """Steps of running cells are read from their logs."""
    monkeypatch.setattr(runner, 'TELL_EVERY', 0.2)
    lines = []
    monkeypatch.setattr(log, 'info', lambda text, *values: lines.append(text % values))
    program = 'print("step 400/1000  loss 1", flush=True); time.sleep(1)'
    run(tmp_path, program, jobs=1, chosen=cells(tmp_path, 'seed=1,2', '--steps=1000'))
    assert any(
        re.fullmatch(r'finished 0, running 1, to come 1; \d+ h \d\d min left', line)
        for line in lines
    )
    assert lines[-1] == 'finished 2, running 0, to come 0'


def test_a_continued_run_counts_from_its_checkpoint(tmp_path, monkeypatch):
    """Of 1000 steps 900 were saved before. Seeing step 900 again is no work: no time is told."""
    monkeypatch.setattr(runner, 'TELL_EVERY', 0.2)
    lines = []
    monkeypatch.setattr(log, 'info', lambda text, *values: lines.append(text % values))
    chosen = cells(tmp_path, 'seed=1', '--steps=1000')
    (tmp_path / 'runs' / 'seed=1' / 'ckpt' / 'step-00000900').mkdir(parents=True)
    run(tmp_path, 'print("step 900/1000  x", flush=True); time.sleep(1)', chosen=chosen)
    assert 'finished 0, running 1, to come 0' in lines
    assert not any('left' in line for line in lines)


@pytest.mark.parametrize('cards, count, expected', [(['0', '1', '2'], 0, 3), ([], 5, 5)])
def test_as_many_at_once_as_cards_or_as_asked_for(monkeypatch, cards, count, expected):
    monkeypatch.setattr(launch, 'gpus', lambda: cards)
    assert runner.jobs_of(count) == expected


@pytest.mark.parametrize('cores, expected', [(1, 1), (2, 2), (3, 2), (4, 2), (9, 4), (64, 32)])
def test_without_cards_one_for_each_two_cores(monkeypatch, cores, expected):
    monkeypatch.setattr(launch, 'gpus', list)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(cores)))
    assert runner.jobs_of(0) == expected
