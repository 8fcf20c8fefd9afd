"""The scripts called from other folders, by other names, beside files that shadow the project's."""

import os
import shutil
import sys

import pytest

from machine import ROOT

SHADOWS = ('callbacks.py', 'gitloss.py', 'json.py', 'tensorflow.py', 'trainers/__init__.py')


@pytest.fixture
def shadowed(machine):
    """The user's folder has files with the names of the project's packages, of a module of Python
    and of TensorFlow, and a test/ with a common.sh, as another checkout: each ends what runs it.
    """
    for name in SHADOWS:
        machine.script(machine.home / name, 'raise SystemExit("shadowed")')
    machine.script(machine.home / 'test' / 'common.sh', 'echo shadowed; exit 1')
    machine.variables = {
        'PYTHON': machine.script(machine.home / 'py', f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'),
        'PATH': f'{machine.bin}:{os.path.dirname(shutil.which("make") or sys.executable)}',
    }
    for name in ('callbacks', 'Makefile'):
        copy = shutil.copytree if os.path.isdir(os.path.join(ROOT, name)) else shutil.copy
        copy(os.path.join(ROOT, name), str(machine.root / name))
    return machine


@pytest.mark.parametrize('linked', [False, True])
def test_scripts_train_this_project_from_any_folder(shadowed, linked):
    """An unknown flag is refused by the project's own parser, before TensorFlow is imported."""
    script = shadowed.root / 'test' / 'train_performance_1p.sh'
    if linked:
        link = shadowed.home / 'train'
        link.symlink_to(script)
        script = link
    status, out, err = shadowed.bash(
        str(script), '--stepz=1', cwd=shadowed.home, **shadowed.variables
    )
    assert (status, out) == (2, '')
    assert err.startswith('trainers.run: --stepz: expected a known flag, --steps perhaps')


@pytest.mark.skipif(not shutil.which('make'), reason='make is not installed')
def test_make_of_another_folder_trains_this_project(shadowed):
    command = f'make -f "{shadowed.root}/Makefile" quick ARGS=--stepz=1'
    status, out, err = shadowed.bash('-c', command, cwd=shadowed.home, **shadowed.variables)
    assert (status, out) == (2, '')
    assert err.startswith('trainers.run: --stepz: expected a known flag, --steps perhaps')
