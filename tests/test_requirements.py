"""The requirements, the locks and the package agree on what is installed."""

import os
import sys

import pytest
from packaging.requirements import Requirement

from machine import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _lines(name):
    with open(os.path.join(ROOT, name)) as file:
        return [line.strip() for line in file if line.strip() and not line.startswith(('#', '-r'))]


def test_package_dependencies_are_lines_of_the_requirements():
    with open(os.path.join(ROOT, 'pyproject.toml'), 'rb') as file:
        project = tomllib.load(file)['project']
    assert set(project['dependencies']) <= set(_lines('requirements.txt'))
    for extra in project['optional-dependencies'].values():
        assert set(extra) <= set(_lines('requirements-dev.txt'))


@pytest.mark.parametrize(
    'extra, source',
    [
        ('align', 'gitloss/data/detection.py'),
        ('parquet', 'gitloss/data/embedding_formats.py'),
        ('retrieval', 'gitloss/metrics/neighbors.py'),
        ('sweep', 'gitloss/metrics/statistics.py'),
        ('tsne', 'callbacks/pictures.py'),
    ],
)
def test_without_the_package_of_an_extra_its_line_is_what_to_install(extra, source):
    """Not the extra itself: gitloss is on no index, so outside the checkout nothing has extras."""
    with open(os.path.join(ROOT, 'pyproject.toml'), 'rb') as file:
        (line,) = tomllib.load(file)['project']['optional-dependencies'][extra]
    with open(os.path.join(ROOT, source), encoding='utf-8') as file:
        assert f'pip install "{line.split(";")[0]}"' in file.read()


@pytest.mark.parametrize(
    'lock, version', [('requirements-py37.lock', '3.7'), ('requirements-py311.lock', '3.11')]
)
def test_locks_pin_all_that_is_required(lock, version):
    pins = dict(line.lower().replace('-', '_').split('==') for line in _lines(lock))
    for line in _lines('requirements.txt') + _lines('requirements-dev.txt'):
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({'python_version': version}):
            assert wanted.specifier.contains(pins[wanted.name.lower().replace('-', '_')]), line
