"""make wheel: where the package is built, installed and tested. The interpreters only pretend."""

import os
import shutil

import pytest

from machine import ROOT

WHEEL = 'gitloss-1-py3-none-any.whl'


@pytest.fixture
def packed(machine):
    """The machine, with the files that a wheel is built of."""
    for name in ('pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(os.path.join(ROOT, name), str(machine.root))
    return machine


def logged(machine, version):
    """What the interpreter of a version is asked for."""
    check = f'{version} -I {machine.root}/tests/wheel_check.py {machine.root}'
    return ['venv ' + version, 'pip dist', 'pip ' + WHEEL, check]


def test_the_wheel_is_tested_on_both_interpreters(packed):
    packed.python(packed.bin / 'python3.11')
    packed.python(packed.bin / 'python3.7', version='3.7')
    assert packed.call('run_wheel', REQUIRE_PY37='1')[0] == 0
    assert packed.logged() == logged(packed, '3.11') + logged(packed, '3.7')
    assert os.listdir(str(packed.root / 'dist')) == [WHEEL]
    assert not (packed.root / '.venv-wheel').exists()


def test_with_python37_alone_it_is_tested_once(packed):
    packed.python(packed.bin / 'python3.7', version='3.7')
    assert packed.call('run_wheel', REQUIRE_PY37='1')[0] == 0
    assert packed.logged() == logged(packed, '3.7')


@pytest.mark.parametrize('required, expected', [('', 0), ('1', 1)])
def test_a_missing_python37_is_said_loudly(packed, required, expected):
    packed.python(packed.bin / 'python3.11')
    status, _, err = packed.call('run_wheel', REQUIRE_PY37=required)
    assert status == expected
    assert 'THE WHEEL WAS NOT TESTED ON PYTHON 3.7 WITH TENSORFLOW 1.15.' in err


def test_a_python_that_cannot_make_environments_is_refused(packed):
    python = packed.python(packed.home / 'python', modules='venv tensorflow')
    status, _, err = packed.call('run_wheel', PYTHON=python)
    assert (status, err.count('\n'), packed.logged()) == (2, 1, [])
    assert err.startswith('PYTHON: expected a Python 3.7 or 3.10 to 3.13 with venv and ensurepip.')


def test_a_wheel_that_cannot_be_built_ends_it(packed):
    packed.python(packed.bin / 'python3.11')
    packed.fail.write_text('')
    status, _, err = packed.call('run_wheel')
    assert (status, err.splitlines()[-1]) == (1, 'The wheel could not be built.')
    assert packed.logged() == ['venv 3.11', 'pip dist']
    assert not (packed.root / '.venv-wheel').exists() and not (packed.root / 'dist').exists()
