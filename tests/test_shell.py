"""The shell scripts: which Python is chosen, how environments are made, what runs the tests. No
training, no network.
"""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from machine import BASH, EVERYTHING, ROOT


@pytest.mark.parametrize(
    'script',
    [
        'test/common.sh',
        'test/train_full_1p.sh',
        'test/train_performance_1p.sh',
        'test/train_full_8p.sh',
        'test/train_performance_8p.sh',
        '.ci/run',
    ],
)
def test_scripts_are_valid_bash(script):
    subprocess.run([BASH, '-n', os.path.join(ROOT, script)], check=True)


def test_lacks_names_missing_modules_without_importing():
    """Asked of the real interpreter: json is there, no_such_module is not, and `this`, which would
    print, is not imported.
    """
    command = 'source test/common.sh; lacks "$0" json no_such_module this'
    done = subprocess.run(
        [BASH, '-c', command, sys.executable], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, 'no_such_module', '')


@pytest.mark.parametrize(
    'before, expected', [(signal.SIG_DFL, 'SIG_DFL'), (signal.SIG_IGN, 'SIG_IGN')]
)
def test_run_module_makes_ctrl_c_silent_before_the_first_import(before, expected):
    """The module `code` runs the statements of stdin. An ignored SIGINT, as of a rank in the
    background, stays ignored.
    """
    done = subprocess.run(
        [BASH, '-c', 'source test/common.sh; run_module "$0" code', sys.executable],
        cwd=ROOT,
        input='import signal\nprint(signal.getsignal(signal.SIGINT).name)\n',
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, before),
    )
    assert (done.returncode, done.stdout.strip('> \n')) == (0, expected)


def test_pick_python_order(machine):
    """All three exist; the first one is removed each time: $PYTHON, then that of the active
    environment, then .venv.
    """
    given = machine.python(machine.home / 'given')
    active = machine.python(machine.bin / 'python')
    own = machine.python(machine.root / '.venv' / 'bin' / 'python')
    assert machine.call('pick_python', PYTHON=given)[:2] == (0, given)
    assert machine.call('pick_python')[:2] == (0, active)
    # Active, but without TensorFlow.
    machine.python(machine.bin / 'python', modules='venv ensurepip')
    assert machine.call('pick_python')[:2] == (0, own)
    assert machine.logged() == []  # nothing was made or installed


@pytest.mark.parametrize(
    'modules, words',
    [('numpy venv', 'without tensorflow'), ('tensorflow tf_keras numpy absl', 'without ')],
)
def test_python_variable_must_have_what_is_needed(machine, modules, words):
    machine.python(machine.root / '.venv' / 'bin' / 'python')  # not fallen back to
    status, out, err = machine.call(
        'pick_python', PYTHON=machine.python(machine.home / 'given', modules=modules)
    )
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert err.startswith('PYTHON: expected a Python 3 that has tensorflow') and words in err


def test_python_variable_that_does_not_run(machine):
    status, out, err = machine.call('pick_python', PYTHON='/nowhere/python')
    assert (
        (status, out) == (2, '')
        and err.count('\n') == 1
        and '/nowhere/python, which does not run' in err
    )


def test_active_environment_with_tensorflow_but_incomplete_is_an_error(machine):
    """A user's TensorFlow, which may have the adapter of a device, is not silently replaced by
    another one.
    """
    machine.python(machine.bin / 'python', modules='tensorflow tf_keras numpy absl tensorboard PIL')
    status, out, err = machine.call('pick_python')
    assert (status, out, err.count('\n')) == (2, '', 1) and 'but not matplotlib tqdm' in err


def test_a_program_that_is_no_python_trains_nothing(machine):
    """`true` returns 0 for every call, and prints no version."""
    status, out, err = machine.bash('test/train_full_1p.sh', PYTHON=shutil.which('true'))
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert err.startswith('PYTHON: expected a Python 3 that has tensorflow. Received: ')


def test_environment_is_made_on_first_use_and_again_when_the_lock_changes(machine):
    machine.python(machine.bin / 'python3.11')
    for _ in range(2):  # the second call finds it ready
        status, out, _ = machine.call('pick_python')
        assert (status, out) == (0, str(machine.root / '.venv' / 'bin' / 'python'))
        assert machine.logged() == ['venv 3.11', 'pip requirements-py311.lock']
    with open(str(machine.root / 'requirements-py311.lock'), 'a') as file:
        file.write('another==1.0\n')
    assert machine.call('pick_python')[0] == 0
    assert machine.logged() == ['venv 3.11', 'pip requirements-py311.lock'] * 2


@pytest.mark.parametrize(
    'version, file', [('3.7', 'requirements-py37.lock'), ('3.12', 'requirements-dev.txt')]
)
def test_installed_is_what_fits_the_version(machine, version, file):
    machine.python(machine.bin / ('python' + version), version=version)
    assert machine.call('pick_python')[0] == 0
    assert machine.logged() == ['venv ' + version, 'pip ' + file]


def test_interrupted_installation_is_seen_and_made_anew(machine):
    """After a kill between unpacking and the stamp, an environment may hold half a package,
    although all modules can be found.
    """
    machine.python(machine.bin / 'python3.11')
    machine.fail.write_text('')
    assert machine.call('pick_python')[0] == 2
    stamp = machine.root / '.venv' / 'made-by-gitloss'
    assert stamp.read_text() == 'unfinished\n'
    machine.fail.unlink()
    (machine.root / '.venv' / 'bin' / 'python.has').write_text(EVERYTHING)
    assert machine.call('pick_python')[0] == 0
    assert stamp.read_text() != 'unfinished\n'
    assert machine.logged() == ['venv 3.11', 'pip requirements-py311.lock'] * 2


def test_users_own_environment_is_added_to_not_deleted(machine):
    machine.python(machine.bin / 'python3.11')
    machine.python(machine.root / '.venv' / 'bin' / 'python', modules='venv ensurepip')
    mine = machine.root / '.venv' / 'mine'
    mine.write_text('')
    assert machine.call('pick_python')[0] == 0
    assert machine.logged() == ['pip requirements-py311.lock'] and mine.exists()


def test_no_python_at_all(machine):
    status, out, err = machine.call('pick_python')
    assert (status, out, err.count('\n')) == (2, '', 1) and err.startswith('No Python found')


def test_find_python37_passes_over_a_shim_that_refuses(machine):
    shim = 'echo "pyenv: python3.7: command not found" >&2; exit 127\n'
    machine.script(machine.bin / 'python3.7', '#!/bin/sh\n' + shim)
    assert machine.call('find_python37') == (0, '', '')
    versions = machine.home / '.pyenv' / 'versions'
    machine.script(versions / '3.7.1' / 'bin' / 'python', '#!/bin/sh\n' + shim)
    machine.python(versions / '3.8.18' / 'bin' / 'python', version='3.8')
    works = machine.python(versions / '3.7.16' / 'bin' / 'python', version='3.7')
    assert machine.call('find_python37') == (0, works, '')
    elsewhere = machine.python(
        machine.home / 'other' / 'versions' / '3.7.9' / 'bin' / 'python', version='3.7'
    )
    assert machine.call('find_python37', PYENV_ROOT=str(machine.home / 'other')) == (
        0,
        elsewhere,
        '',
    )


def test_tests_run_on_both_interpreters(machine):
    machine.python(machine.bin / 'python3.11')
    machine.python(machine.bin / 'python3.7', version='3.7')
    assert machine.call('run_tests -x', REQUIRE_PY37='1')[0] == 0
    logged = machine.logged()
    assert logged[:4] == [
        'venv 3.11',
        'pip requirements-py311.lock',
        'venv 3.7',
        'pip requirements-py37.lock',
    ]
    assert sorted(logged[4:]) == [
        '3.11 -m pytest -x',
        f'3.7 -m pytest -x with peer {machine.root}/.venv/bin/python',
    ]
    assert (machine.root / '.venv37').is_dir()


@pytest.mark.parametrize('required, expected', [('', 0), ('1', 1)])
def test_left_out_leg_is_said_loudly(machine, required, expected):
    machine.python(machine.bin / 'python3.11')
    status, _, err = machine.call('run_tests', REQUIRE_PY37=required)
    assert status == expected
    boxed = [line for line in err.splitlines() if line.startswith('**')]
    assert len(boxed) >= 5 and len({len(line) for line in boxed}) == 1
    assert 'THE TESTS DID NOT RUN ON PYTHON 3.7 WITH TENSORFLOW 1.15.' in err
