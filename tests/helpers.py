"""Helpers shared by the tests: running graph code, recording losses, measuring the error of a
float32 result, looking into a graph.
"""

import contextlib
import os

import numpy as np

from callbacks.base import Callback
from gitloss.backend import tf
from gitloss.data.source import Source


class Points(Source):
    """What a fake handle sweeps: what it reads are the embeddings."""

    image_shape, parallel = (), False

    def __init__(self, embeddings, labels):
        self.embeddings, self.labels = embeddings, labels

    def read(self, indices):
        return self.embeddings[indices]


def pixels(source):
    """All images of a Source: uint8 [n, height, width, channels]."""
    return source.images(np.arange(len(source)))


def cpu_config():
    """Of a CPU session with as many threads as a trainer's. The first session of a process decides
    for all later ones, whose float sums depend on it.
    """
    cores = len(os.sched_getaffinity(0))
    return tf.ConfigProto(
        device_count={'GPU': 0}, inter_op_parallelism_threads=1, intra_op_parallelism_threads=cores
    )


@contextlib.contextmanager
def graph_session(seed=0):
    """`with graph_session() as session:` a fresh, seeded graph and a CPU session on it."""
    config = cpu_config()
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(seed)
        with tf.Session(graph=graph, config=config) as session:
            yield session


class Losses(Callback):
    """Records the loss of every step in `seen`."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(logs['loss'])


def run_graph(build, *arrays):
    """Calls `build` with placeholders of the static shapes of the arrays, in a fresh graph. Returns
    the values of the tensors that it returns.
    """
    with graph_session() as session:
        inputs = [tf.placeholder(array.dtype, array.shape) for array in arrays]
        fetches = build(*inputs)
        session.run(tf.global_variables_initializer())
        return session.run(fetches, dict(zip(inputs, arrays)))


def relative_error(value, reference):
    """The largest deviation relative to the largest magnitude of the reference. If the reference is
    all zero, 0 only for an exact match.
    """
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    assert value.shape == reference.shape
    assert np.isfinite(value).all()
    deviation, scale = np.abs(value - reference).max(), np.abs(reference).max()
    return deviation / scale if scale else (np.inf if deviation else 0.0)


def all_nodes(graph):
    """Every NodeDef of a graph, those in function bodies (loops) included."""
    definition = graph.as_graph_def(add_shapes=True)
    return list(definition.node) + [
        node for function in definition.library.function for node in function.node_def
    ]


def static_shapes(node):
    """Static shapes of a node's outputs."""
    return [tf.TensorShape(shape) for shape in node.attr['_output_shapes'].list.shape]


def operations_behind(fetches, is_left_out=lambda op: False):
    """All operations that a run of the fetches needs, except those left out and their inputs."""
    found, waiting = set(), [getattr(fetch, 'op', fetch) for fetch in fetches]
    while waiting:
        op = waiting.pop()
        if op not in found and not is_left_out(op):
            found.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return found


def collectives_of(fetches):
    """{name: names of all operations it needs} of the collectives between devices in a run of
    `fetches`; those of integers, which pass between hosts, are left out.
    """
    return {
        op.name: {needed.name for needed in operations_behind([op])}
        for op in operations_behind(tf.nest.flatten(fetches))
        if op.type.startswith('Collective') and op.get_attr('group_key') == 1
    }
