"""The collectives of a group of workers, what the workers decide in common, and their parts of a
batch. Workers are threads here; test_workers.py has processes.
"""

import time

import numpy as np
import pytest

from crew import together
from gitloss import data
from gitloss.backend import tf
from gitloss.errors import WorkerLost
from trainers import launch
from trainers.workers import engines as distribution
from trainers.workers.group import OneWorker


def test_one_worker_adds_nothing_to_the_graph():
    with tf.Graph().as_default() as graph:
        group, tensor = OneWorker(), tf.ones([2, 3])
        before = len(graph.get_operations())
        assert group.all_gather(tensor) is tensor and group.all_reduce([tensor])[0] is tensor
        group.build([])
        assert len(graph.get_operations()) == before


def test_a_chief_that_never_comes_is_waited_for_ten_times_as_long():
    """Worker 1 of two; 10 * 0.1 s."""
    group = distribution.Collectives(
        launch.free_addresses(2), 1, tf.ConfigProto(device_count={'GPU': 0}), 0.1
    )
    start = time.monotonic()
    with tf.Graph().as_default() as graph, pytest.raises(
        WorkerLost,
        match='^start: expected an answer from all 2 workers. Received: '
        'nothing for 1 s; worker 0 at 127.0.0.1:[0-9]+ is gone. Start all',
    ):
        group.session(graph, tf.ConfigProto())
    assert 1 <= time.monotonic() - start < 10


def test_what_is_gathered_lies_in_the_order_of_rank():
    """Eleven workers: TensorFlow orders task names as text, where 10 comes before 2."""

    def work(group, session):
        gathered = group.all_gather(tf.constant([[group.rank]], tf.int32))
        with session() as run:
            return run.run(gathered).ravel().tolist()

    assert together(11, work) == [list(range(11))] * 11


def test_the_gradient_of_a_gather_is_the_own_part_of_the_whole():
    """L = sum_ij w_ij (x_i . x_j) over all six rows of three workers: dL/dx_i = sum_j (w_ij + w_ji)
    x_j, of which each worker computes its two rows."""
    random = np.random.RandomState(0)
    x, w = random.randn(6, 4).astype(np.float32), random.randn(6, 6).astype(np.float32)

    def work(group, session):
        mine = tf.constant(x[2 * group.rank : 2 * group.rank + 2])
        everything = group.all_gather(mine)
        (gradient,) = tf.gradients(
            tf.reduce_sum(w * tf.matmul(everything, everything, transpose_b=True)), [mine]
        )
        with session() as run:
            return run.run([everything, gradient])

    for rank, (everything, gradient) in enumerate(together(3, work)):
        assert everything.tobytes() == x.tobytes()
        np.testing.assert_allclose(gradient, ((w + w.T).dot(x))[2 * rank : 2 * rank + 2], rtol=1e-5)


@pytest.mark.parametrize('bucket, reductions', [(1 << 20, 1), (8, 3)])
def test_sums_come_in_few_reductions(monkeypatch, bucket, reductions):
    """Tensors of 6, 1, 20 and 2 floats in buckets of 8 floats: 6 + 1, then 20, which has a bucket
    of its own, then 2.
    """
    monkeypatch.setattr(distribution, 'BUCKET', bucket)

    def work(group, session):
        values = [
            tf.fill(shape, float(place + group.rank))
            for place, shape in enumerate(([2, 3], [], [20], [1, 2]))
        ]
        sums = group.all_reduce(values)
        count = sum(op.type == 'CollectiveReduce' for op in tf.get_default_graph().get_operations())
        with session() as run:
            return count, run.run(sums)

    for count, sums in together(2, work):
        assert count == reductions
        assert [(value.shape, np.unique(value).tolist()) for value in sums] == [
            ((2, 3), [1]),
            ((), [3]),
            ((20,), [5]),
            ((1, 2), [7]),
        ]


def variables_of(rank):
    return [
        tf.get_variable(
            'a', initializer=tf.constant([-0.0, np.nan, 1.0 + rank]), use_resource=True
        ),
        tf.get_variable('b', initializer=tf.constant(1 << (40 + rank), tf.int64)),
        tf.get_variable('c', initializer=tf.constant([rank, 7], tf.int32), use_resource=True),
    ]


def test_what_the_chief_has_and_decides_reaches_all():
    """Variables are equal to the bit, the sign of zero and NaN included; also a decision longer
    than one chunk of 64 KiB, and requests.
    """
    decision = {'text': 'x' * 100000 + '\u00e9', 'pi': 0.1 + 0.2, 'nothing': None}

    def work(group, session):
        variables = variables_of(group.rank)
        initial, one = tf.global_variables_initializer(), tf.constant(1)
        group.build(variables)
        with session() as run:
            run.run(initial)
            decided = [
                group.decide(run, lambda value=value: value if group.is_chief else 'own')
                for value in (decision, None)
            ]
            _, requests = group.run(run, one, requests=[15 * group.rank, 0])
            group.broadcast_variables(run)
            group.check_replicas(run, 1)
            group.finish(run)
            return decided, requests, [value.tobytes() for value in run.run(variables)]

    for decided, requests, values in together(2, work):
        assert decided == [decision, None] and requests == [15, 0]
        assert values == [
            np.array([-0.0, np.nan, 1], np.float32).tobytes(),
            np.int64(1 << 40).tobytes(),
            np.array([0, 7], np.int32).tobytes(),
        ]


def test_a_mistake_that_the_chief_finds_is_told_by_all():
    def work(group, session):
        group.build(variables_of(0))
        with session() as run:

            def decision():
                raise ValueError('--steps: expected more. Received: less')

            group.decide(run, decision)

    assert [(type(error), str(error)) for error in together(2, work)] == [
        (ValueError, '--steps: expected more. Received: less')
    ] * 2


@pytest.mark.parametrize(
    'change, name', [({'a': [0, np.nan, 1]}, 'a'), ({'b': 1 << 41}, 'b'), ({'c': [7, 0]}, 'c')]
)
def test_replicas_that_differ_stop_the_run(change, name):
    """A difference in the sign of a zero, in the upper half of an integer, in the order of two
    values.
    """

    def work(group, session):
        variables = variables_of(0)
        changes = [
            tf.assign(variable, change[variable.name[0]])
            for variable in variables
            if variable.name[0] in change
        ]
        initial = tf.global_variables_initializer()
        group.build(variables)
        with session() as run:
            run.run(initial)
            if group.rank == 1:
                run.run(changes)
            group.check_replicas(run, 300)

    for error in together(2, work):
        assert isinstance(error, WorkerLost)
        assert str(error) == (
            f'step 300: expected the same variables on all 2 workers. Received: another {name} '
            'on worker 1 than on worker 0'
        )


@pytest.mark.parametrize('size', [1, 2, 3])
def test_the_parts_of_the_workers_make_the_global_batch(size):
    source = data.ArraySource(
        np.arange(70, dtype=np.uint8).reshape(70, 1, 1, 1), np.arange(70, dtype=np.int32)
    )
    whole = data.BatchStream(source, 12, seed=3)
    for step in (0, 5, 11):  # the last batch crosses into the third epoch
        parts = [data.BatchStream(source, 12, 3, rank, size).batch(step) for rank in range(size)]
        for part, both in zip(zip(*parts), whole.batch(step)):
            assert np.concatenate(part).tolist() == both.tolist()
    walks = zip(*[data.padded_batches(source, 12, rank, size) for rank in range(size)])
    for parts, (images, labels, count) in zip(walks, data.padded_batches(source, 12)):
        assert np.concatenate([part for part, _, _ in parts]).tolist() == images.tolist()
        assert all(their.tolist() == labels.tolist() and n == count for _, their, n in parts)
