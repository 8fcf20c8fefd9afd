"""The PReLU of training on a CPU against NumPy in float64 and against Keras's."""

import numpy as np
import pytest

from gitloss import bfloat16, layers
from gitloss.backend import keras, tf
from helpers import graph_session, relative_error

SHAPE = (6, 5, 4, 7)


def outputs_and_gradients(on_cpu, x, alpha, upstream, dtype='float32'):
    """(outputs, gradient by x, gradient by alpha, types of the operations)."""
    with graph_session() as session:
        images = keras.Input(SHAPE[1:], batch_size=SHAPE[0])
        with bfloat16.computing(dtype):
            layer = layers.PReLU(shared_axes=[1, 2])
        network = keras.Model(images, layer(images))
        layers.enter(network, layers.Phase(1, tf.constant(0), slice(0, 6), SHAPE[0], on_cpu=on_cpu))
        feed = tf.placeholder(tf.float32, SHAPE)
        y = tf.cast(network(feed, training=True), tf.float32)
        found = [y, *tf.gradients(y, [feed, layer.alpha], upstream)]
        session.run(tf.global_variables_initializer())
        layer.alpha.load(alpha[None, None], session)
        kinds = {node.type for node in session.graph.get_operations()}
        return [*session.run(found, {feed: x}), kinds]


@pytest.mark.parametrize('on_cpu', [True, False])
@pytest.mark.parametrize('dtype, bound', [('float32', 1e-6), ('bfloat16', 0.006)])
def test_outputs_and_gradients_are_those_of_the_definition(dtype, bound, on_cpu):
    """y = x for x > 0, else alpha x. With u the incoming gradient, dx = u for x > 0, alpha u for
    x < 0, and 0 at 0, as Keras has it; d alpha = the sum of u x where x < 0. Slopes below 0 and
    above 1 are among them. bfloat16 rounds inputs, slopes and results by 2^-9 each.
    """
    if dtype == 'bfloat16' and tf.__version__.startswith('1.'):
        pytest.skip('TensorFlow 1.15 has no bfloat16 on a CPU')
    random = np.random.RandomState(0)
    x, upstream = random.normal(size=(2, *SHAPE)).astype(np.float32)
    x[0, 0] = 0.0
    alpha = np.array([-0.5, 0.0, 0.01, 0.25, 1.0, 1.5, 3.0], np.float32)
    y, by_x, by_alpha, _ = outputs_and_gradients(on_cpu, x, alpha, upstream, dtype)
    wide, u = x.astype(np.float64), upstream.astype(np.float64)
    assert relative_error(y, np.where(x > 0, wide, alpha * wide)) < bound
    assert relative_error(by_x, u * ((x > 0) + alpha * (x < 0))) < bound
    assert relative_error(by_alpha[0, 0], (u * np.minimum(wide, 0)).sum((0, 1, 2))) < bound


def test_it_is_the_layer_of_keras_everywhere_else():
    """On NPU and GPU, and with TensorFlow 1.15, the graph has no function."""
    compiles = not tf.__version__.startswith('1.')
    zeros, alpha = np.zeros(SHAPE, np.float32), np.zeros(SHAPE[-1], np.float32)
    calls = {'PartitionedCall', 'StatefulPartitionedCall'}
    for on_cpu in (True, False):
        assert bool(outputs_and_gradients(on_cpu, zeros, alpha, zeros)[-1] & calls) == (
            on_cpu and compiles
        )
