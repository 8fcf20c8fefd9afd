"""Networks built elsewhere: their layers become ours, or are refused; which weights decay."""

import itertools

import numpy as np
import pytest

from gitloss import layers
from gitloss.backend import keras, tf
from helpers import graph_session, relative_error


def small_net():
    """What MobileNetV2 is made of, in small: it takes a second, not ten."""
    images = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, use_bias=False, name='conv')(images)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(momentum=0.999, name='bn')(x))
    x = keras.layers.DepthwiseConv2D(3, padding='same', name='depthwise')(x)
    x = keras.layers.BatchNormalization(scale=False, epsilon=1e-2, name='bn2')(x)
    x = keras.layers.SpatialDropout2D(0.2)(x)
    return keras.Model(images, keras.layers.Dropout(0.5)(keras.layers.Flatten()(x)))


def mobile_net():
    return keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, include_top=False, weights=None, pooling='avg'
    )


def test_a_keras_application_gets_our_layers():
    """MobileNetV2 has 52 normalisation layers; no learning phase and no update op remains of it."""
    with tf.Graph().as_default() as graph:
        images = keras.Input((32, 32, 3), batch_size=2)
        numbers, built = itertools.count(1), []

        def build():
            built.append(mobile_net())
            return built[-1]

        network = keras.Model(images, layers.adopt(build, images, lambda: next(numbers)))
        ours = [one for one in network.submodules if isinstance(one, layers.BatchNormalization)]
        assert len(ours) == 52 and {one.momentum for one in ours} == {0.999}
        assert not network.updates
        assert not [op.name for op in graph.get_operations() if 'learning_phase' in op.name]
        layers.refuse_foreign_modes(network)
        assert network.count_params() == built[0].count_params()


def test_its_weights_are_a_function_of_the_seed():
    def first_weight(seed):
        with graph_session() as session:
            images = keras.Input((32, 32, 3), batch_size=1)
            numbers = itertools.count(seed)
            layers.adopt(small_net, images, lambda: next(numbers))
            session.run(tf.global_variables_initializer())
            return session.run(tf.global_variables()[0])

    np.testing.assert_array_equal(first_weight(1), first_weight(1))
    assert (first_weight(1) != first_weight(1000)).any()


def test_an_adopted_network_infers_as_the_original():
    """With the same weights, moving averages included, both give the same features."""
    x = np.random.RandomState(6).normal(size=(2, 32, 32, 3)).astype(np.float32)
    with graph_session() as session:
        original = small_net()
        session.run(tf.global_variables_initializer())
        random = np.random.RandomState(7)
        weights = [random.uniform(0.5, 1.0, w.shape.as_list()) * 0.2 for w in original.weights]
        for variable, value in zip(original.weights, weights):
            variable.load(value, session)
        wanted = session.run(original(tf.constant(x), training=False))
    with graph_session() as session:
        images = keras.Input((32, 32, 3), batch_size=2)
        network = keras.Model(images, layers.adopt(small_net, images, lambda: 1))
        session.run(tf.global_variables_initializer())
        for variable, value in zip(network.weights, weights):
            variable.load(value, session)
        found = session.run(network.output, {network.input: x})
    assert relative_error(found, wanted) < 1e-5


def test_normalisation_over_another_axis_is_refused():
    def build():
        images = keras.Input((4, 4, 3))
        return keras.Model(images, keras.layers.BatchNormalization(axis=1, name='odd')(images))

    with tf.Graph().as_default(), pytest.raises(ValueError, match='^odd: expected .* last axis'):
        layers.adopt(build, keras.Input((4, 4, 3)), lambda: 1)


@pytest.mark.parametrize('layer', ['BatchNormalization', 'Dropout', 'GaussianNoise'])
def test_a_layer_that_keras_would_switch_is_refused(layer):
    settings = () if layer == 'BatchNormalization' else (0.5,)
    with tf.Graph().as_default():
        images = keras.Input((4, 4, 3))
        network = keras.Model(images, getattr(keras.layers, layer)(*settings, name='odd')(images))
        with pytest.raises(ValueError, match=f'^odd: expected a layer of gitloss.layers.*{layer}'):
            layers.refuse_foreign_modes(network)


def test_weight_decay_leaves_biases_normalisation_and_slopes_alone():
    with tf.Graph().as_default():
        images = keras.Input((4, 4, 3))
        x = keras.layers.Conv2D(2, 3, name='conv')(images)
        x = keras.layers.DepthwiseConv2D(2, name='depth')(layers.BatchNormalization()(x))
        network = keras.Model(images, keras.layers.PReLU()(x))
        found = [variable.name for variable in layers.decayed(network.trainable_weights)]
    assert found == ['conv/kernel:0', 'depth/depthwise_kernel:0']
