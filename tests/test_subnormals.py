"""Subnormal numbers count as zero while a session runs on the thread of its caller."""

import numpy as np
import pytest

from gitloss.backend import tf
from trainers import subnormals
from trainers.engine import embedding
from trainers.workers.group import OneWorker

pytestmark = pytest.mark.skipif(not subnormals.IS_SUPPORTED, reason='x86-64 with glibc only')
# A tenth of the smallest normal number of float64 and of float32: 2.2e-309 and 1.2e-39.
SMALL, SMALL_32 = np.finfo(np.float64).tiny, np.finfo(np.float32).tiny


def tenth(*_):
    """[a tenth of SMALL, computed now]; also what a session returns."""
    return [np.full(2, SMALL) / 10.0]


def test_they_are_zero_in_the_context_alone():
    """Also after an error, and in a context within another."""
    assert tenth()[0].all()
    with pytest.raises(KeyError), subnormals.as_zero():
        with subnormals.as_zero():
            assert not tenth()[0].any()
        assert not tenth()[0].any()
        raise KeyError
    assert tenth()[0].all()


def test_of_a_step_in_tensorflow():
    """As threads of TensorFlow compute, on a session that uses the thread of its caller."""
    config = tf.ConfigProto(inter_op_parallelism_threads=-1, intra_op_parallelism_threads=1)
    with tf.Graph().as_default() as graph:
        value = tf.placeholder(tf.float32, [4])
        product, group = value * 0.1, OneWorker()
        with group.session(graph, config) as session:
            feeds = {value: [SMALL_32, 1.0, SMALL_32, SMALL_32]}
            alone = session.run(product, feeds)
            found, _ = group.run(session, product, feeds)
    assert alone.all()  # so the threads of TensorFlow were not asked
    np.testing.assert_array_equal(found, np.float32([0.0, 0.1, 0.0, 0.0]))


def test_of_embeddings():
    class Net:
        embeddings = logits = None

    class Session:
        run = staticmethod(tenth)

    with tf.Graph().as_default():
        Net.images = tf.placeholder(tf.float32, [2, 1, 1, 1])
    embedder = embedding.of_session(Net, Session, 2)
    assert not embedder.values(['embeddings'], np.zeros([2, 1, 1, 1]))[0].any()
