"""The launcher of several workers: their ends, their cards, its flags and its signals."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from gitloss.errors import log
from trainers import launch
from trainers.engine.signals import Signals


def launched(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'trainers.launch'] + list(arguments),
        cwd=launch.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def test_the_launcher_ends_with_the_status_of_the_first_that_failed(tmp_path):
    """Both workers find the mistake in the flags; worker 1 reports it in its log."""
    ended = launched('--workers=2', f'--log_dir={tmp_path}', '--', '--steps=many')
    said = "trainers.run: --steps: expected a whole number. Received: 'many'\n"
    assert ended.returncode == 2
    assert said in ended.stdout.decode() and (tmp_path / 'worker-1.log').read_text() == said


def test_a_process_works_in_the_folder_of_its_starter(here):
    """A relative path in its flags is the starter's, who need not be in the project's root."""
    log = str(here / 'log')
    process = launch.spawn(['-c', 'import os, trainers; print(os.getcwd())'], {}, log)
    assert process.wait(60) == 0
    with open(log, encoding='utf-8') as file:
        assert os.path.samefile(file.read().strip(), str(here))


def test_one_failure_ends_the_others(tmp_path):
    """Worker 1 fails while worker 0 would sleep for a minute; the line names worker 1 and its
    log.
    """
    program = (
        'import os, sys, time; time.sleep(60 if \'"index": 0\' in os.environ["TF_CONFIG"] else '
        '0.3); sys.exit(7)'
    )
    started = []
    launch.start(started, [], 2, str(tmp_path), program=('-c', program))
    before = time.monotonic()
    assert launch.wait(started, grace=0.5) == 7
    assert time.monotonic() - before < 20 and started[0][0].returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    'visible, devices, expected',
    [
        (None, 0, []),
        (None, 2, ['0', '1']),
        (None, 1, []),  # as many as in /dev
        ('2,3,5', 0, ['2', '3']),
        ('GPU-8f, GPU-1c', 4, ['GPU-8f', 'GPU-1c']),
        ('0', 4, []),
        ('', 4, []),
        ('1,-1,0', 4, []),
        ('-1', 4, []),
    ],
)
def test_each_worker_gets_a_card_of_its_own_where_there_are_enough(
    tmp_path, monkeypatch, visible, devices, expected
):
    monkeypatch.setattr(
        launch.glob, 'glob', lambda pattern: [f'/dev/nvidia{number}' for number in range(devices)]
    )
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    assert launch.cards(2) == expected
    if len(expected) == 2 and visible:
        started = []
        launch.start(
            started,
            [],
            2,
            str(tmp_path),
            program=('-c', 'import os; print(os.environ["CUDA_VISIBLE_DEVICES"])'),
        )
        assert (
            launch.wait(started) == 0
            and (tmp_path / 'worker-1.log').read_text() == expected[1] + '\n'
        )
        launch.end(started)


@pytest.mark.parametrize('given, expected', [(None, '1'), ('4', '4')])
def test_workers_allocate_from_one_arena_unless_the_user_has_decided(
    tmp_path, monkeypatch, given, expected
):
    monkeypatch.delenv('MALLOC_ARENA_MAX', raising=False)
    if given:
        monkeypatch.setenv('MALLOC_ARENA_MAX', given)
    started = []
    program = ('-c', 'import os; print(os.environ["MALLOC_ARENA_MAX"])')
    launch.start(started, [], 2, str(tmp_path), program=program)
    assert launch.wait(started) == 0
    assert (tmp_path / 'worker-1.log').read_text() == expected + '\n'
    launch.end(started)


# A launcher whose workers write to a file that they run, and later which signal ended them.
LAUNCHER = """
import sys
from trainers import launch
start = launch.start
launch.start = lambda *arguments: start(*arguments, program=('-c', sys.argv[1]))
sys.exit(launch.main(sys.argv[2:]))
"""
FOLLOWER = """
import json, os, signal, sys, time
from trainers import run
rank = json.loads(os.environ['TF_CONFIG'])['task']['index']
path = os.path.join(sys.argv[1].split('=')[1], f'is-{rank}')
def note(signum=0, frame=None):
    with open(path + '.new', 'w') as file:
        file.write(str(signum))
    os.rename(path + '.new', path)
    if signum:
        os._exit(3)
signal.signal(signal.SIGTERM, note)
sys.exit(run.main(sys.argv[1:], work=lambda options: note() or time.sleep(60)))
"""


@pytest.mark.parametrize('signum, status', [(signal.SIGHUP, 3), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_worker_outlives_the_launcher(tmp_path, signum, status):
    """The terminal of the launcher is closed, or the launcher is killed: each worker gets SIGTERM,
    upon which a training saves a checkpoint.
    """

    def noted():
        return [
            path.read_text() for path in (tmp_path / 'is-0', tmp_path / 'is-1') if path.exists()
        ]

    def until(expected):
        limit = time.monotonic() + 60
        while noted() != expected and time.monotonic() < limit:
            time.sleep(0.02)
        assert noted() == expected

    process = subprocess.Popen(
        [
            sys.executable,
            '-c',
            LAUNCHER,
            FOLLOWER,
            f'--log_dir={tmp_path}',
            '--',
            f'--exp_save_dir={tmp_path}',
        ],
        cwd=launch.ROOT,
        stdin=subprocess.DEVNULL,
        # Under nohup SIGHUP would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    try:
        until(['0', '0'])
        process.send_signal(signum)
        until(['15', '15'])
        assert process.wait(60) == status
    finally:
        process.kill()
        process.wait()


def test_a_signal_is_obeyed_though_the_terminal_is_gone():
    """Writes to the closed terminal fail, which must not cost the checkpoint."""

    class Gone(logging.Handler):
        def emit(self, record):
            raise OSError(errno.EIO, 'Input/output error')

    log.handlers = log.handlers + [Gone()]  # conftest restores the logger
    signals = Signals()
    with signals:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    assert signals.received == signal.SIGTERM


@pytest.mark.parametrize('arguments', [['--workers=0'], ['--workers=two'], ['--wrokers=2']])
def test_a_mistake_in_the_launchers_flags_is_status_2(arguments):
    assert launched(*arguments).returncode == 2


def test_the_tfjob_gives_the_claim_to_the_chief_alone():
    """A volume claim shared by pods would have to be ReadWriteMany; the other workers write their
    logs to their own disks.
    """
    with open(os.path.join(launch.ROOT, 'docs', 'distributed.md'), encoding='utf-8') as file:
        manifest = file.read().split('```yaml')[1].split('```')[0]
    chief, worker = manifest.split('    Worker:')
    assert 'persistentVolumeClaim' in chief and 'emptyDir' not in chief
    assert (
        'emptyDir' in worker
        and 'persistentVolumeClaim' not in worker
        and 'template: *' not in worker
    )
