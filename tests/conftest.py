"""Set-up shared by all tests: one hypothesis profile, seeds."""
import logging
import random

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile('gitloss', deadline=None, derandomize=True, database=None, max_examples=40)
hypothesis.settings.load_profile('gitloss')


@pytest.fixture(autouse=True)
def _seeded():
    """Global generators start alike in every test, whatever ran before it; TensorFlow's are seeded graph by graph."""
    random.seed(0)
    np.random.seed(0)


_LOG = logging.getLogger('gitloss')
_LOGGING = _LOG.handlers, _LOG.level, _LOG.propagate, logging.raiseExceptions


@pytest.fixture(autouse=True)
def _logging_restored():
    """trainers.run.main sets up the project's log for a process of its own; a test, or the fixture of a module, that calls it must not mute
    the tests after it."""
    _LOG.handlers, _LOG.level, _LOG.propagate, logging.raiseExceptions = _LOGGING
    yield
    _LOG.handlers, _LOG.level, _LOG.propagate, logging.raiseExceptions = _LOGGING
