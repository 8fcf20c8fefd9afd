"""Limits of the process, umask and temporary folders. benchmarks/environments.py draws more."""

import os
import resource
import subprocess
import sys

import pytest

from trainers import command
from trainers import options as options_module

UNLIMITED = resource.RLIM_INFINITY


@pytest.fixture(autouse=True)
def _umask_restored():
    before = os.umask(0o022)
    yield
    os.umask(before)


def status_of(work):
    """That of a command which calls `work`."""
    return command.main(['--device=cpu'], 'trainers.run', '', work)


@pytest.mark.parametrize(
    'name, limit, line',
    [
        ('RLIMIT_AS', 1 << 30, 'ulimit -v: expected at least 8388608 KiB. Received: 1048576'),
        ('RLIMIT_DATA', 1 << 29, 'ulimit -d: expected at least 4194304 KiB. Received: 524288'),
        ('RLIMIT_NOFILE', 63, 'ulimit -n: expected at least 64 open files. Received: 63'),
    ],
)
def test_limits_in_which_tensorflow_aborts_are_refused(name, limit, line, monkeypatch, capfd):
    """The limit is the soft one; the hard one may be higher."""
    low = getattr(resource, name)
    monkeypatch.setattr(
        resource,
        'getrlimit',
        lambda which: (limit if which == low else UNLIMITED, UNLIMITED),
    )
    assert status_of(lambda options: pytest.fail('it ran')) == 2
    assert capfd.readouterr().err == f'trainers.run: {line}\n'


def test_the_least_limits_are_enough(monkeypatch):
    least = {resource.RLIMIT_AS: 8 << 30, resource.RLIMIT_DATA: 4 << 30, resource.RLIMIT_NOFILE: 64}
    monkeypatch.setattr(resource, 'getrlimit', lambda which: (least[which], UNLIMITED))
    assert status_of(lambda options: 0) == 0


def test_an_interpreter_that_drops_docstrings_is_refused():
    """TensorFlow 2.21 cannot be imported there."""
    end = subprocess.run(
        [sys.executable, '-OO', '-m', 'trainers.run'],
        cwd=options_module.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    line = 'trainers.run: python: expected docstrings. Received: -OO or PYTHONOPTIMIZE=2\n'
    assert (end.returncode, end.stdout.decode()) == (2, line)


@pytest.mark.parametrize('umask, mode', [(0o777, 0o700), (0o022, 0o755), (0o277, 0o700)])
def test_the_umask_leaves_the_owners_rights(umask, mode, tmp_path):
    """A folder of mode 000 could be made, but not be entered by its owner."""

    def work(options):
        (tmp_path / 'folder').mkdir()
        return 0

    os.umask(umask)
    assert status_of(work) == 0
    assert (tmp_path / 'folder').stat().st_mode & 0o777 == mode


def test_tensorflow_is_imported_where_no_temporary_folder_can_be_written():
    """Files have 0 bytes at most. Python finds no temporary folder then, as on a read-only root."""
    code = (
        'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); '
        'from gitloss.backend import tf; tf.Session().close()'
    )
    end = subprocess.run(
        [sys.executable, '-c', code],
        env=dict(os.environ, PYTHONPATH=options_module.ROOT, PYTHONDONTWRITEBYTECODE='1'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (end.returncode, end.stdout.decode()) == (0, '')
