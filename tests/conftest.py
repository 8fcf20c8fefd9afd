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


@pytest.fixture(autouse=True)
def _logging_restored():
    """trainers.run.main sets up the project's log for a process of its own; a test that calls it must not mute the tests after it."""
    log = logging.getLogger('gitloss')
    before = log.handlers, log.level, log.propagate, logging.raiseExceptions
    yield
    log.handlers, log.level, log.propagate, logging.raiseExceptions = before
