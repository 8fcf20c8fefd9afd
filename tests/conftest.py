"""Set-up shared by all tests: one hypothesis profile, seeds, the fakes of cards and machines."""

import gc
import json
import logging
import os
import random
import sys

import hypothesis
import numpy as np
import pytest

from machine import HISTORY, RESULTS, TRAINER, Machine

FAKES = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'fakes')
CARD_VARIABLES = (
    'ASCEND_DEVICE_ID',
    'DEVICE_ID',
    'RANK_ID',
    'RANK_SIZE',
    'RANK_TABLE_FILE',
    'JOB_ID',
    'SOC_VERSION',
)
hypothesis.settings.register_profile(
    'gitloss', deadline=None, derandomize=True, database=None, max_examples=40
)
hypothesis.settings.load_profile('gitloss')


def pytest_collection_finish():
    """What has been imported by now stays: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    """Seeds the global generators before every test. TensorFlow is seeded graph by graph."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _no_card(monkeypatch):
    """Removes the variables that name a card; a test about one sets them itself."""
    for name in CARD_VARIABLES:
        monkeypatch.delenv(name, raising=False)


_LOG = logging.getLogger('gitloss')
_LOGGING = _LOG.handlers, _LOG.level, _LOG.propagate, logging.raiseExceptions


@pytest.fixture(autouse=True)
def _logging_restored():
    """Restores the project's logger: trainers.run.main configures it for its own process, which
    must not mute later tests.
    """
    _LOG.handlers, _LOG.level, _LOG.propagate, logging.raiseExceptions = _LOGGING
    yield
    _LOG.handlers, _LOG.level, _LOG.propagate, logging.raiseExceptions = _LOGGING


@pytest.fixture
def machine(tmp_path):
    """A machine for the shell scripts, without any Python."""
    return Machine(tmp_path)


@pytest.fixture
def zoo(machine):
    """A machine whose $PYTHON only pretends to train: it leaves RESULTS and HISTORY in $RUN."""
    (machine.home / 'results.json').write_text(json.dumps(RESULTS))
    (machine.home / 'history.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in HISTORY))
    machine.variables = {
        'PYTHON': machine.script(machine.home / 'trainer', TRAINER.replace('REAL', sys.executable))
    }
    return machine


@pytest.fixture
def fakes(monkeypatch):
    """Makes the fake importable. Its imported modules, except npu_init, are forgotten
    afterwards.
    """
    monkeypatch.syspath_prepend(FAKES)
    yield
    for name in [
        name for name in sys.modules if name.split('.')[0] in ('npu_bridge', 'npu_device')
    ]:
        assert not name.endswith('npu_init')
        del sys.modules[name]


@pytest.fixture
def forked_parity():
    """See exports.forked_parity."""
    import exports

    with exports.forked_parity():
        yield


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder in which the test works, so that its paths are short."""
    monkeypatch.chdir(str(tmp_path))
    return tmp_path
