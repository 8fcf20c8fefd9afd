"""The cause of an error in one line, whatever TensorFlow puts before it."""

import numpy as np
import pytest

from gitloss.backend import tf
from gitloss.errors import reason
from helpers import graph_session


def raised(work):
    with pytest.raises(Exception) as error:
        work()
    return reason(error.value)


def saved(folder, variables=('w',), shape=(3,), dtype=tf.float32):
    """(session, saver) with variables of these names; all zero."""
    session = tf.Session()
    made = [
        tf.get_variable(name, shape, dtype, tf.zeros_initializer(), use_resource=True)
        for name in variables
    ]
    session.run(tf.global_variables_initializer())
    return session, tf.train.Saver(made)


@pytest.mark.parametrize(
    'changes, cause',
    [
        ({'variables': ('w', 'layer/b')}, 'Key layer/b not found in checkpoint'),
        ({'dtype': tf.float64}, 'tensor_name = w; expected dtype double'),
    ],
)
def test_restoring_names_the_tensor(tmp_path, changes, cause):
    """TF 1.15 begins with "Restoring from checkpoint failed" and three more sentences."""
    path = str(tmp_path / 'model')
    with tf.Graph().as_default():
        session, saver = saved(tmp_path)
        saver.save(session, path, write_meta_graph=False, write_state=False)
    with tf.Graph().as_default():
        session, saver = saved(tmp_path, **changes)
        assert raised(lambda: saver.restore(session, path)).startswith(cause)


def test_saving_names_the_file_and_the_cause():
    with tf.Graph().as_default():
        session, saver = saved(None)
        cause = raised(lambda: saver.save(session, '/proc/1/model', write_meta_graph=False))
    assert cause.startswith('/proc/1/model') and cause.endswith('No such file or directory')


# What TensorFlow 2.21 says. It waits ten seconds for memory before, which 1.15 does not.
NO_MEMORY = """Graph execution error:

Detected at node 'random_uniform/RandomUniform' defined at (most recent call last):
    File "train.py", line 4, in <module>
Node: 'random_uniform/RandomUniform'
OOM when allocating tensor with shape[16777216,16777216] and type float on CPU:0 by allocator mklcpu
\t [[{{node random_uniform/RandomUniform}}]]
Hint: If you want to see a list of allocated tensors when OOM happens, add it to RunOptions.

Original stack trace for 'random_uniform/RandomUniform':
  File "train.py", line 4, in <module>
"""


def _allocate(session):
    if not tf.__version__.startswith('1.'):
        raise tf.errors.ResourceExhaustedError(None, None, NO_MEMORY)
    session.run(tf.reduce_sum(tf.random_uniform([1 << 24, 1 << 24])))  # a pebibyte


def test_memory_and_indices():
    with graph_session() as session:
        told = raised(lambda: _allocate(session))
        assert told.startswith('OOM when allocating tensor with shape[16777216,16777216]')
        wrong = tf.gather(tf.zeros([3]), tf.placeholder_with_default([7], [1]))
        assert raised(lambda: session.run(wrong)) == 'indices[0] = 7 is not in [0, 3)'


@pytest.mark.parametrize(
    'error, cause',
    [
        (
            OSError(5, 'Input/output error', 'a.npy'),
            "OSError: [Errno 5] Input/output error: 'a.npy'",
        ),
        (ValueError('pixels: expected uint8'), 'ValueError: pixels: expected uint8'),
    ],
)
def test_data_that_cannot_be_read(error, cause):
    """A Python function in a tf.data pipeline: its error stands behind that of the iterator."""

    def read(number):
        raise error

    with graph_session() as session:
        data = tf.data.Dataset.range(3).map(lambda n: tf.numpy_function(read, [n], tf.int64))
        value = tf.data.make_one_shot_iterator(data).get_next()
        assert raised(lambda: session.run(value)) == cause


@pytest.mark.parametrize(
    'text, cause',
    [
        ('plain', 'plain'),
        ('\n  first\nsecond', 'first'),
        (
            'Graph execution error:\n\nFrom /job:worker/replica:0/task:1:\nreset by peer',
            'reset by peer',
        ),
        (
            '2 root error(s) found.\n  (0) Invalid argument: no\n\t [[node a]]\n  (1) Internal: x',
            'no',
        ),
        (
            "Graph execution error:\n\nDetected at node 'a' defined at\n\nNode: 'a'\nDetected at "
            "node 'b' defined at\nNode: 'b'\n2 root error(s) found.\n  (0) INVALID_ARGUMENT:  no\n",
            'no',
        ),
        ('{{function_node __inference_a_<lambda>_6}} {{function_node b}} no', 'no'),
        ('Graph execution error:', 'Graph execution error:'),
    ],
)
def test_preambles(text, cause):
    assert reason(RuntimeError(text)) == cause


def test_an_error_without_a_text_has_its_name():
    assert reason(ArithmeticError()) == 'ArithmeticError'
    assert reason(np.linalg.LinAlgError('\n')) == 'LinAlgError'
