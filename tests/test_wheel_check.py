"""wheel_check.py sees what a wheel lacks. No wheel is built: the folder that pip would install into
is made by hand. `make wheel` does the real thing.
"""

import os
import shutil
import subprocess
import sys

import pytest

import gitloss
from machine import ROOT


@pytest.fixture
def site(tmp_path):
    """A function of files that the wheel lacks, and of another folder of modules -> (status, last
    line) of the check.
    """
    shutil.copytree(
        os.path.join(ROOT, 'gitloss'),
        str(tmp_path / 'gitloss'),
        ignore=shutil.ignore_patterns('__pycache__'),
    )
    about = tmp_path / f'gitloss-{gitloss.__version__}.dist-info'
    about.mkdir()
    (about / 'METADATA').write_text(f'Name: gitloss\nVersion: {gitloss.__version__}\n')
    (about / 'LICENSE').write_text('')

    def check(*lacking, also=''):
        for name in lacking:
            path = tmp_path / name
            shutil.rmtree(str(path)) if path.is_dir() else path.unlink()
        there = (path for path in tmp_path.rglob('*') if path.is_file())
        lines = [f'{path.relative_to(tmp_path).as_posix()},,\n' for path in there]
        (about / 'RECORD').write_text(''.join(lines))
        done = subprocess.run(
            [sys.executable, os.path.join(ROOT, 'tests', 'wheel_check.py'), ROOT],
            cwd=str(tmp_path),
            env=dict(os.environ, PYTHONPATH=f'{tmp_path}:{also}', PYTHONDONTWRITEBYTECODE='1'),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout.splitlines()[-1]

    return check


def test_a_whole_package_passes(site):
    status, line = site()
    assert status == 0 and line.startswith(f'gitloss {gitloss.__version__}: '), line


@pytest.mark.parametrize(
    'lacking', ['gitloss/layers/phase.py', 'gitloss/py.typed', 'gitloss/losses.py']
)
def test_a_file_that_is_missing_is_named(site, lacking):
    assert site(lacking) == (1, f'AssertionError: the wheel lacks {lacking}')


def test_a_sub_package_that_is_missing_is_named(site):
    status, line = site('gitloss/metrics')
    assert status == 1 and line.startswith(
        'AssertionError: the wheel lacks gitloss/metrics/__init__.py, gitloss/metrics/bootstrap.py'
    )


def test_a_missing_licence_and_another_version_are_seen(site, tmp_path):
    about = tmp_path / f'gitloss-{gitloss.__version__}.dist-info'
    (about / 'METADATA').write_text('Name: gitloss\nVersion: 9.9\n')
    assert site() == (1, 'AssertionError: 9.9')
    (about / 'LICENSE').unlink()
    assert site() == (1, 'AssertionError: the wheel lacks LICENSE')


def test_a_package_beside_gitloss_is_seen(site, tmp_path):
    (tmp_path / 'callbacks').mkdir()
    (tmp_path / 'callbacks' / '__init__.py').write_text('')
    assert site() == (1, 'AssertionError: the wheel has callbacks/__init__.py')


def test_metrics_that_import_tensorflow_are_seen(site, tmp_path, tmp_path_factory):
    """A module of that name is enough, and quick to import."""
    also = tmp_path_factory.mktemp('also')
    (also / 'tensorflow.py').write_text('')
    with open(str(tmp_path / 'gitloss' / 'metrics' / 'classes.py'), 'a') as file:
        file.write('\nimport tensorflow\n')
    assert site(also=also) == (1, 'AssertionError: metrics or figures import TensorFlow')
