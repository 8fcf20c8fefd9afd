"""The training graph for the NPU: static shapes, no forbidden operation, steps that overflow."""

import re

import numpy as np
import pytest

import toys
from gitloss import data
from gitloss.backend import tf
from helpers import operations_behind, static_shapes
from trainers import devices
from trainers.engine.graph import TrainingGraph
from trainers.options import Options


def _training_graph(settings, device):
    dataset = data.load('mnist', settings.data_folder)
    device = devices.Device(device, '', None, mixed=device == 'npu')
    return TrainingGraph(settings, dataset.spec, device, source=dataset.train)


def _behind(fetches):
    """Operations that a run needs; what the iterator needs is work of the host."""
    return operations_behind(fetches, lambda op: op.type.startswith('Iterator'))


def _within(operations, graph):
    """NodeDefs in the branches of conditionals, which TensorFlow 2 stores in functions."""
    bodies = {
        function.signature.name: function.node_def
        for function in graph.as_graph_def(add_shapes=True).library.function
    }
    found, waiting = [], [op.node_def for op in operations]
    while waiting:
        inner = [
            node for attr in waiting.pop().attr.values() for node in bodies.get(attr.func.name, ())
        ]
        found += inner
        waiting += inner
    return found


WIDE = (tf.float64, tf.complex64, tf.complex128)


def _faults(operations, inner):
    """{kind: names} of what an NPU refuses, in operations and in the NodeDefs of branches."""
    wide = {one.as_datatype_enum for one in WIDE}
    kinds = {op.type for op in operations} | {node.op for node in inner}
    tensors = [
        tensor
        for op in operations
        for tensor in op.outputs
        if tensor.dtype.base_dtype not in (tf.resource, tf.variant)
    ]
    return {
        'open': [
            node.name
            for node in inner
            if not all(shape.is_fully_defined() for shape in static_shapes(node))
        ]
        + [tensor.name for tensor in tensors if not tensor.shape.is_fully_defined()],
        'float64': [
            node.name for node in inner if {attr.type for attr in node.attr.values()} & wide
        ]
        + [tensor.name for tensor in tensors if tensor.dtype.base_dtype in WIDE],
        'forbidden': sorted(
            kind for kind in kinds if re.match('Unique|PyFunc|EagerPyFunc|.*Queue', kind)
        ),
    }


@pytest.mark.parametrize(
    'flags',
    [
        {},
        {'git_loss_form': 'pairwise', 'embedding_dim': 64},
        {'git_loss_form': 'pairwise'},
        {
            'git_loss_form': 'pairwise',
            'embedding_dim': 512,
            'batch_size': 128,
            'distance': 'cosine',
        },
        {'head': 'arcface', 'embedding_dim': 64},
        {'schedule': 'cosine', 'warmup_steps': 2},
        {'schedule': 'step', 'decay_steps': 3, 'optimizer': 'momentum'},
        {'loss_scale': 'dynamic'},
        {'loss_scale': '1024', 'iterations_per_loop': 4, 'optimizer': 'sgd'},
    ],
)
def test_the_graph_for_the_npu_is_static_and_has_nothing_forbidden(tmp_path, fakes, flags):
    """What the step runs, conditionals included, has no dynamic shape, no float64, no Python
    function, Unique or queue. On the CPU the pairwise form of many dimensions computes in float64,
    which shows that the test detects it.
    """
    settings = toys.options(tmp_path, **flags)
    found = {}
    for name in ('npu', 'cpu'):
        with tf.Graph().as_default() as graph:
            net = _training_graph(settings, name)
            operations = _behind(
                [net.train_op, net.steps_done, net.rate_of_step] + list(net.step_fetches.values())
            )
            inner = _within(operations, graph)
        # Shape arithmetic on constants is folded by TensorFlow before the card's compiler sees the
        # graph.
        operations = {
            op
            for op in operations
            if op.type != 'BroadcastGradientArgs'
            or {tensor.op.type for tensor in op.inputs} != {'Const'}
        }
        found[name] = _faults(operations, inner)
        assert len(operations) > 150
        newer = not tf.__version__.startswith('1.')
        assert name == 'cpu' or bool(inner) == (bool(settings.loss_scale) and newer)
        assert ('IterationOp' in {op.name for op in operations}) == (
            settings.iterations_per_loop > 1
        )
    assert found['npu'] == {'open': [], 'float64': [], 'forbidden': []}
    assert bool(found['cpu']['float64']) == (
        flags.get('embedding_dim', 2) > 8 and flags.get('git_loss_form') == 'pairwise'
    )


@pytest.mark.parametrize(
    'device, optimizer', [('cpu', 'adam'), ('cpu', 'sgd'), ('npu', 'momentum'), ('npu', 'adagrad')]
)
def test_an_overflow_moves_neither_weights_nor_centers_nor_counts(
    tmp_path, fakes, device, optimizer
):
    """One bias is infinite in the second of three steps, and so are all embeddings and gradients:
    that step changes nothing. Each of the other two counts its 16 labels.
    """
    settings = toys.options(tmp_path, loss_scale='dynamic', optimizer=optimizer)
    with tf.Graph().as_default():
        net = _training_graph(settings, device)
        state = [net.center_table.centers, net.center_table.updates, net.global_step]
        state += net.model.weights + net.classifier.weights
        bias = next(weight for weight in net.model.weights if weight.name == 'embeddings/bias:0')
        value = tf.placeholder(tf.float32, bias.shape)
        put = tf.assign(bias, value)
        with tf.Session(config=devices.choose(Options(device='cpu')).config) as session:

            def step():
                moved = session.run([net.train_op, net.step_fetches, net.steps_done])[1:]
                return session.run(state), moved

            session.run(tf.global_variables_initializer())
            session.run(net.iterator.initializer, {net.first_step: 0})
            before, (logs, done) = step()
            assert (done, before[1].sum()) == (1, 16) and logs['center_drift'] > 0
            assert np.all(before[0] != 0)
            kept = session.run(bias)
            session.run(put, {value: np.full_like(kept, np.inf)})
            after, (logs, done) = step()
            assert done == 1 and not np.isfinite(logs['center_loss']) and logs['center_drift'] == 0
            session.run(put, {value: kept})
            for mine, its in zip(before, session.run(state)):
                np.testing.assert_array_equal(mine, its)
            last, (logs, done) = step()
    assert (
        (done, last[1].sum()) == (2, 32)
        and np.all(last[0] != before[0])
        and all(np.isfinite(values).all() for values in last)
    )


def test_without_loss_scaling_the_step_has_no_conditional(tmp_path):
    with tf.Graph().as_default():
        net = _training_graph(toys.options(tmp_path), 'npu')
        assert not {op.type for op in _behind([net.train_op])} & {'If', 'StatelessIf', 'Switch'}
