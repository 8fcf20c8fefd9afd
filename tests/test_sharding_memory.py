"""What keeps the memory of classes in shards small: initial values without a second copy, updates
in turn, tensors read in pieces.
"""

import numpy as np
import pytest

from gitloss.backend import tf
from gitloss.data import DataSpec
from gitloss.data.source import ArraySource
from gitloss.sharding import all_finite, initializer
from gitloss.sharding.ranges import ClassRange
from gitloss.sharding.variables import Shard, shard_variable
from helpers import graph_session
from trainers import devices
from trainers.engine.graph import TrainingGraph
from trainers.options import Options


@pytest.mark.parametrize(
    'initial, value',
    [
        (tf.zeros_initializer(), 0.0),
        (tf.constant_initializer(0.1), 0.1),
        (tf.constant_initializer(np.full([700, 3], 2.5, np.float32)), 2.5),
    ],
)
def test_an_initial_value_is_not_copied(initial, value):
    """700 x 3 numbers: zeros of 1,000 and more are an operation, fewer are a constant."""
    with graph_session() as session:
        variable = tf.get_variable('rows', [700, 3], tf.float32, initial, use_resource=True)
        assign = initializer(variable)
        session.run(assign)
        np.testing.assert_allclose(session.run(variable), np.full([700, 3], value), rtol=1e-7)
    assert (assign is variable.initializer) == (value == 2.5)


def test_whole_numbers_begin_at_zero():
    with graph_session() as session:
        counts = tf.get_variable(
            'counts', [2000], tf.int32, tf.zeros_initializer(), use_resource=True
        )
        session.run(initializer(counts))
        assert session.run(counts).tolist() == [0] * 2000


@pytest.mark.parametrize('row', [None, 0, 16])
@pytest.mark.parametrize('by_rows', [True, False])
def test_a_number_that_is_not_finite_is_found_in_every_piece(by_rows, row):
    """17 rows of 2^20 numbers: pieces of 2^24 have 16 rows and 1."""
    with graph_session() as session:
        shard = Shard('whole', 17, [ClassRange(0, 17, 0, 17)], by_rows)
        variable = shard_variable('part', shard, [17, 1 << 20])
        other = tf.get_variable('other', [2], use_resource=True)
        session.run([tf.global_variables_initializer()])
        if row is not None:
            session.run(tf.scatter_update(variable, [row], tf.fill([1, 1 << 20], float('nan'))))
        assert np.all(session.run(all_finite([variable, other]))) == (row is None)


def ancestors(op):
    found, left = set(), [op]
    while left:
        for each in [*(tensor.op for tensor in left[-1].inputs), *left.pop().control_inputs]:
            if each not in found:
                found.add(each)
                left.append(each)
    return found


@pytest.mark.parametrize('optimizer', ['sgd', 'momentum', 'adam', 'adagrad'])
@pytest.mark.parametrize('loss_scale', ['', '1024'])
def test_the_shards_of_a_worker_are_updated_one_after_another(optimizer, loss_scale):
    """So one gradient of class weights is in memory at a time. With loss scaling the gradients of
    all shards are looked at before the first update.
    """
    options = Options(
        model='lenet_pp',
        optimizer=optimizer,
        device='cpu',
        batch_size=4,
        shard_classes=True,
        class_shards=3,
        loss_scale=loss_scale,
    )
    source = ArraySource(np.zeros((8, 28, 28, 1), np.uint8), np.zeros(8, np.int32))
    with tf.Graph().as_default() as graph:
        spec = DataSpec('made-up', source.image_shape, 9)
        TrainingGraph(options, spec, devices.choose(options), source=source)
        updates = [
            next(
                op
                for op in graph.get_operations()
                if 'ResourceApply' in op.type
                and f'part_{number}/class_weights' in op.inputs[0].name
            )
            for number in range(3)
        ]
        is_before = [first in ancestors(second) for first, second in zip(updates, updates[1:])]
    assert is_before == [not loss_scale] * 2
