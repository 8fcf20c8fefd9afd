"""Set-up shared by all tests: one hypothesis profile, seeds."""

import logging
import os
import random

import hypothesis
import numpy as np
import pytest

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


@pytest.fixture(autouse=True)
def _seeded():
    """Global generators start alike in every test, whatever ran before it; TensorFlow's are seeded
    graph by graph.
    """
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _no_card(monkeypatch):
    """Whatever card the machine has: a test that is about one says so itself."""
    for name in CARD_VARIABLES:
        monkeypatch.delenv(name, raising=False)


_LOG = logging.getLogger('gitloss')
_LOGGING = _LOG.handlers, _LOG.level, _LOG.propagate, logging.raiseExceptions


@pytest.fixture(autouse=True)
def _logging_restored():
    """trainers.run.main sets up the project's log for a process of its own; a test, or the fixture
    of a module, that calls it must not mute the tests after it."""
    _LOG.handlers, _LOG.level, _LOG.propagate, logging.raiseExceptions = _LOGGING
    yield
    _LOG.handlers, _LOG.level, _LOG.propagate, logging.raiseExceptions = _LOGGING
