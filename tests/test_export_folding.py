"""Frozen graphs with fewer operations compute the same."""

import collections

import numpy as np
import pytest

import exports
from gitloss.backend import tf
from trainers.exporting.folding import simplified

CHANNELS = 3


def random(*shape, seed=0):
    return np.random.RandomState(seed).uniform(0.5, 1.5, shape).astype(np.float32)


def normalised(x):
    """What batch normalisation is in inference: a product and a sum, of computed constants."""
    channels = x.shape.as_list()[-1]
    factor = tf.constant(random(channels, seed=1)) * tf.math.rsqrt(tf.constant(random(channels)))
    return x * factor + (tf.constant(random(channels, seed=2)) - factor)


def convolution(x):
    return tf.nn.conv2d(x, tf.constant(random(2, 2, CHANNELS, 4)), [1, 1, 1, 1], 'SAME')


def depthwise(x):
    """Two outputs for each channel: those of one channel are next to each other."""
    kernel = tf.constant(random(2, 2, CHANNELS, 2))
    return tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], 'SAME')


def dense(x):
    return tf.matmul(tf.reshape(x, [tf.shape(x)[0], -1]), tf.constant(random(16 * CHANNELS, 5)))


def transposed(x):
    flat = tf.reshape(x, [tf.shape(x)[0], -1])
    return tf.matmul(flat, tf.constant(random(5, 16 * CHANNELS)), transpose_b=True)


def biased(x):
    return tf.nn.bias_add(convolution(x), tf.constant(random(4, seed=3)))


def read_twice(x):
    """The kernel's output is needed as it is, too."""
    y = convolution(x)
    return normalised(y) + y


CASES = {
    'convolution': (lambda x: normalised(convolution(x)), 0),
    'depthwise': (lambda x: normalised(depthwise(x)), 0),
    'dense': (lambda x: normalised(dense(x)), 0),
    'transposed': (lambda x: normalised(transposed(x)), 0),
    'bias': (lambda x: normalised(biased(x)), 0),
    'twice': (lambda x: normalised(normalised(convolution(x))), 0),
    'read twice': (read_twice, 1),
    'no kernel before': (normalised, 1),
}


@pytest.mark.parametrize('name', CASES)
def test_factors_go_into_the_kernel_before_them(name):
    """The products that stay are those with nothing to go into. Folding rounds differently: 1e-6 of
    the largest value.
    """
    build, products = CASES[name]
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, [None, 4, 4, CHANNELS], name='input_images')
        tf.identity(build(images), name='out')
        definition = graph.as_graph_def()
    folded = simplified(definition, ['out'])
    pixels = random(2, 4, 4, CHANNELS, seed=5)
    (before,), (after,) = (
        exports.outputs_of(each, pixels, ['out']) for each in (definition, folded)
    )
    np.testing.assert_allclose(after, before, atol=1e-6 * np.abs(before).max())
    kinds = collections.Counter(node.op for node in folded.node)
    assert kinds['Mul'] == products
    assert not set(kinds) & {'Rsqrt', 'Shape', 'StridedSlice', 'Pack'}


def test_a_reshape_whose_sizes_depend_on_the_batch_stays():
    """Rows of two images each: [n / 2, 2 * 48]. For a batch of 2 and of 3 the sizes differ."""
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, [None, 4, 4, CHANNELS], name='input_images')
        tf.reshape(images, [1, 48 * tf.shape(images)[0]], name='out')
        definition = graph.as_graph_def()
    folded = simplified(definition, ['out'])
    assert 'Shape' in {node.op for node in folded.node}
    (found,) = exports.outputs_of(folded, random(4, 4, 4, CHANNELS), ['out'])
    assert found.shape == (1, 4 * 48)
