"""The gradients of convolutions for TensorFlow 1.15's CPU, against TensorFlow's own.

They run on both versions; test_fast_path.py has a training with them.
"""

import numpy as np
import pytest

from gitloss import convolution
from gitloss.backend import tf

OURS = {'Conv2D': convolution.NAME}


@pytest.fixture(autouse=True)
def small_images_too(monkeypatch):
    monkeypatch.setattr(convolution, 'SMALLEST', 1)


@pytest.mark.parametrize(
    'size, channels, filters, kernel, stride, padding',
    [
        (8, 1, 4, 3, 1, 'SAME'),
        (8, 8, 4, 3, 1, 'SAME'),
        (7, 16, 5, 5, 1, 'SAME'),
        (5, 9, 3, 1, 1, 'SAME'),
        (8, 8, 4, 3, 2, 'SAME'),
        (8, 8, 4, 3, 1, 'VALID'),
        (8, 8, 4, 4, 1, 'SAME'),
    ],
)
def test_both_gradients_equal_tensorflows_own(size, channels, filters, kernel, stride, padding):
    """Random images and kernels. Strides, VALID padding and even kernels use TensorFlow's own
    kernels. Errors are relative to the largest entry.
    """
    results = []
    for gradients in ({}, OURS):
        with tf.Graph().as_default() as graph, tf.Session() as session:
            images = tf.constant(
                np.random.RandomState(1).randn(6, size, size + 1, channels).astype(np.float32)
            )
            weights = tf.constant(
                np.random.RandomState(2).randn(kernel, kernel, channels, filters).astype(np.float32)
            )
            with graph.gradient_override_map(gradients):
                out = tf.nn.conv2d(images, weights, [1, stride, stride, 1], padding)
            upstream = tf.constant(
                np.random.RandomState(3).randn(*out.shape.as_list()).astype(np.float32)
            )
            found = tf.gradients(out, [images, weights], upstream)
            # Static shapes, which every device supports.
            assert [one.shape for one in found] == [images.shape, weights.shape]
            results.append(session.run(found))
    for theirs, ours in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max() + 1e-6)


def test_only_tensorflow_1_on_a_cpu_needs_them():
    assert convolution.overrides('gpu') == convolution.overrides('npu') == {}
    assert bool(convolution.overrides('cpu')) == tf.__version__.startswith('1.')
