"""Batch normalisation and dropout against float64 NumPy, on one worker.

Several workers are in test_collectives.py, whole runs in test_training_mode.py.
"""

import numpy as np
import pytest

from gitloss import layers
from gitloss.backend import keras, tf
from helpers import graph_session, relative_error

SHAPES = [(6, 5), (4, 3, 2, 5)]  # [batch, channels] and images


def normalised(x, gamma, beta, epsilon):
    """(outputs, mean, variance) of float64 x over all axes but the last."""
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta, mean, variance


def one_layer(layer, shape, step=0, batch=None, rows=None, gather=None, seed=1):
    """(placeholder of `shape`, output of the layer in training, output at inference, phase)."""
    images = keras.Input(shape[1:], batch_size=shape[0])
    network = keras.Model(images, layer(images))
    phase = layers.Phase(
        seed, tf.constant(step), rows or slice(0, shape[0]), batch or shape[0], gather
    )
    layers.enter(network, phase)
    x = tf.placeholder(tf.float32, shape)
    return x, network(x, training=True), network(x), phase


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('epsilon', [1e-3, 1e-6])
def test_a_batch_is_normalised_by_its_own_statistics(shape, epsilon):
    """Against the definition in float64. Images with a large epsilon use the fused kernel of
    TensorFlow, the others the explicit formula.
    """
    random = np.random.RandomState(0)
    x = random.normal(3.0, 2.0, shape).astype(np.float32)
    gamma, beta = random.normal(size=(2, 5)).astype(np.float32)
    with graph_session() as session:
        layer = layers.BatchNormalization(epsilon=epsilon)
        feed, outputs, _, _ = one_layer(layer, shape)
        session.run(tf.global_variables_initializer())
        layer.gamma.load(gamma, session)
        layer.beta.load(beta, session)
        found = session.run(outputs, {feed: x})
    wanted, _, _ = normalised(x.astype(np.float64), gamma, beta, epsilon)
    assert relative_error(found, wanted) < 2e-6


@pytest.mark.parametrize('shape', SHAPES)
def test_its_gradient_flows_through_the_statistics(shape):
    """With u the incoming gradient and n samples a channel,
    dx = gamma / s (u - mean(u) - z mean(u z)), z = (x - mean) / s, s = sqrt(variance + epsilon).
    """
    random = np.random.RandomState(1)
    x, upstream = random.normal(1.0, 2.0, (2,) + shape).astype(np.float32)
    with graph_session() as session:
        feed, outputs, _, _ = one_layer(layers.BatchNormalization(), shape)
        gradient = tf.gradients(outputs, feed, upstream)[0]
        session.run(tf.global_variables_initializer())
        found = session.run(gradient, {feed: x})
    axes, u = tuple(range(len(shape) - 1)), upstream.astype(np.float64)
    z, _, variance = normalised(x.astype(np.float64), 1.0, 0.0, 1e-3)
    wanted = (u - u.mean(axes) - z * (u * z).mean(axes)) / np.sqrt(variance + 1e-3)
    assert relative_error(found, wanted) < 5e-6


@pytest.mark.parametrize('shape', SHAPES)
def test_moving_averages_are_handed_over_and_not_assigned(shape):
    """After a step: m <- 0.9 m + 0.1 mean, v <- 0.9 v + 0.1 variance n / (n - 1), from 0 and 1.
    The layer itself assigns nothing.
    """
    x = np.random.RandomState(2).normal(3.0, 2.0, shape).astype(np.float32)
    with graph_session() as session:
        layer = layers.BatchNormalization(momentum=0.9)
        feed, outputs, _, phase = one_layer(layer, shape)
        session.run(tf.global_variables_initializer())
        found = session.run([outputs, dict(enumerate(v for _, v in phase.moves))], {feed: x})[1]
        stay = session.run([layer.moving_mean, layer.moving_variance])
    assert [
        variable is moving
        for (variable, _), moving in zip(phase.moves, (layer.moving_mean, layer.moving_variance))
    ] == [True, True]
    _, mean, variance = normalised(x.astype(np.float64), 1.0, 0.0, 0.0)
    count = x.size / 5
    assert relative_error(found[0], 0.1 * mean) < 1e-6
    assert relative_error(found[1], 0.9 + 0.1 * variance * count / (count - 1)) < 1e-6
    np.testing.assert_array_equal(stay, [np.zeros(5), np.ones(5)])


@pytest.mark.parametrize('center', [True, False])
@pytest.mark.parametrize('scale', [True, False])
@pytest.mark.parametrize('shape', SHAPES)
def test_gamma_and_beta_may_be_left_out(shape, center, scale):
    """Without them gamma is 1 and beta 0, which are also their initial values."""
    x = np.random.RandomState(3).normal(size=shape).astype(np.float32)
    with graph_session() as session:
        layer = layers.BatchNormalization(center=center, scale=scale)
        feed, outputs, inference, _ = one_layer(layer, shape)
        session.run(tf.global_variables_initializer())
        trained, inferred = session.run([outputs, inference], {feed: x})
        assert len(layer.trainable_weights) == center + scale
    assert relative_error(trained, normalised(x.astype(np.float64), 1.0, 0.0, 1e-3)[0]) < 2e-6
    assert relative_error(inferred, x / np.sqrt(1.001)) < 1e-6


@pytest.mark.parametrize('frozen', [False, True])
def test_inference_and_frozen_layers_use_the_moving_averages(frozen):
    """gamma (x - m) / sqrt(v + epsilon) + beta with the loaded values, and no update."""
    x = np.random.RandomState(4).normal(size=(6, 5)).astype(np.float32)
    with graph_session() as session:
        layer = layers.BatchNormalization()
        layer.trainable = not frozen
        feed, trained, inferred, phase = one_layer(layer, x.shape)
        session.run(tf.global_variables_initializer())
        values = np.random.RandomState(5).uniform(0.5, 2.0, (4, 5)).astype(np.float32)
        for variable, value in zip(layer.weights, values):
            variable.load(value, session)
        named = {v.name.split('/')[-1]: value for v, value in zip(layer.weights, values)}
        found = session.run(trained if frozen else inferred, {feed: x})
    wanted = named['beta:0'] + named['gamma:0'] * (x - named['moving_mean:0']) / np.sqrt(
        named['moving_variance:0'].astype(np.float64) + 1e-3
    )
    assert relative_error(found, wanted) < 2e-6
    assert bool(phase.moves) is not frozen


def test_a_statistic_of_one_value_stays_finite():
    """One row: its variance is 0, and n / (n - 1) must not divide by 0."""
    with graph_session() as session:
        feed, outputs, _, phase = one_layer(layers.BatchNormalization(), (1, 5))
        session.run(tf.global_variables_initializer())
        values = session.run(
            [outputs] + [value for _, value in phase.moves], {feed: np.ones((1, 5))}
        )
    assert all(np.isfinite(value).all() for value in values)
    np.testing.assert_array_equal(values[0], np.zeros((1, 5)))


def dropped(shape=(64, 50), rate=0.25, **settings):
    """The output for ones in training."""
    noise = settings.pop('noise_shape', None)
    with graph_session() as session:
        layer = layers.Dropout(rate, noise)
        feed, outputs, inference, _ = one_layer(layer, shape, **settings)
        found, same = session.run([outputs, inference], {feed: np.ones(shape)})
    np.testing.assert_array_equal(same, np.ones(shape))
    return found


def test_dropout_keeps_the_mean():
    """Kept values are 1 / (1 - 0.25) = 4 / 3. Of 3200 draws the fraction of zeros is 0.25 within
    four standard deviations, 4 sqrt(0.25 * 0.75 / 3200) = 0.031.
    """
    found = dropped()
    assert set(np.unique(found)) == {np.float32(0.0), np.float32(1.0 / 0.75)}
    assert abs(np.mean(found == 0) - 0.25) < 0.031


def test_a_mask_is_a_function_of_seed_and_step():
    first = dropped(step=7)
    np.testing.assert_array_equal(dropped(step=7), first)
    assert (dropped(step=8) != first).any() and (dropped(step=7, seed=2) != first).any()


def test_the_same_mask_on_both_tensorflows():
    """The generator is Philox (Salmon et al., 2011) on both versions; these draws were recorded on
    one.
    """
    with graph_session() as session:
        phase = layers.Phase(1, tf.constant(7), slice(0, 3), 3)
        found = session.run(phase.uniform([3, 1], 0))[:, 0]
    np.testing.assert_array_equal(
        found, np.float32([0.19993376731872559, 0.3768867254257202, 0.40440428256988525])
    )


@pytest.mark.parametrize('workers', [2, 8])
def test_workers_drop_what_one_worker_would(workers):
    """Eight rows, shared by two workers, or one row each."""
    whole, rows = dropped((8, 50)), 8 // workers
    parts = [
        dropped((rows, 50), batch=8, rows=slice(first, first + rows)) for first in range(0, 8, rows)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_two_layers_of_a_network_have_masks_of_their_own():
    with graph_session() as session:
        images = keras.Input((50,), batch_size=16)
        network = keras.Model(images, [layers.Dropout(0.5)(images), layers.Dropout(0.5)(images)])
        layers.enter(network, layers.Phase(1, tf.constant(0), slice(0, 16), 16))
        one, other = session.run(network(tf.ones([16, 50]), training=True))
    assert (one != other).any()


def test_a_noise_shape_drops_whole_channels():
    found = dropped((4, 6, 6, 20), noise_shape=(None, 1, 1, 20))
    np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1, :1], found.shape))


@pytest.mark.parametrize('rate', [-0.1, 1.0])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ValueError, match=r'^rate: expected a number in \[0, 1\)'):
        layers.Dropout(rate)
