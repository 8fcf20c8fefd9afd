"""The gradients of convolutions for TensorFlow 1.15's CPU, against TensorFlow's own and in a training. They run on both."""
import numpy as np
import pytest

import toys
from callbacks.base import Callback
from gitloss import convolution, data
from gitloss.backend import tf
from trainers import devices
from trainers.trainer import Trainer

OURS = {'Conv2D': convolution._NAME}


@pytest.fixture(autouse=True)
def small_images_too(monkeypatch):
    monkeypatch.setattr(convolution, '_SMALLEST', 1)


@pytest.mark.parametrize('size, channels, filters, kernel, stride, padding', [
    (8, 1, 4, 3, 1, 'SAME'), (8, 8, 4, 3, 1, 'SAME'), (7, 16, 5, 5, 1, 'SAME'), (5, 9, 3, 1, 1, 'SAME'),
    (8, 8, 4, 3, 2, 'SAME'), (8, 8, 4, 3, 1, 'VALID'), (8, 8, 4, 4, 1, 'SAME')])
def test_both_gradients_equal_tensorflows_own(size, channels, filters, kernel, stride, padding):
    """Random images and kernels; strides, VALID padding and even kernels take TensorFlow's kernels. Relative to the largest entry."""
    results = []
    for gradients in ({}, OURS):
        with tf.Graph().as_default() as graph, tf.Session() as session:
            images = tf.constant(np.random.RandomState(1).randn(6, size, size + 1, channels).astype(np.float32))
            weights = tf.constant(np.random.RandomState(2).randn(kernel, kernel, channels, filters).astype(np.float32))
            with graph.gradient_override_map(gradients):
                out = tf.nn.conv2d(images, weights, [1, stride, stride, 1], padding)
            upstream = tf.constant(np.random.RandomState(3).randn(*out.shape.as_list()).astype(np.float32))
            found = tf.gradients(out, [images, weights], upstream)
            assert [one.shape for one in found] == [images.shape, weights.shape]  # static, as a graph for any device wants it
            results.append(session.run(found))
    for theirs, ours in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max() + 1e-6)


def test_only_tensorflow_1_on_a_cpu_needs_them():
    assert convolution.overrides('gpu') == convolution.overrides('npu') == {}
    assert bool(convolution.overrides('cpu')) == tf.__version__.startswith('1.')


@pytest.mark.parametrize('model, optimizer, rate, allowed', [('mnist_cnn', 'momentum', 0.01, 1e-3), ('lenet_pp', 'momentum', 0.01, 1e-3),
                                                             ('mnist_cnn', 'adam', 1e-3, 0.02)])
def test_the_loss_curve_is_that_of_the_plain_gradients(tmp_path, monkeypatch, model, optimizer, rate, allowed):
    """100 steps from one seed. Sums in another order differ by some 1e-7: the first steps show nothing else. Then training multiplies
    it; with Adam more, which divides by the size of the gradient: where that is nearly nothing, rounding decides a whole step."""
    class Losses(Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(logs['loss'])

    curves = []
    for name, gradients in (('plain', {}), ('ours', OURS)):
        monkeypatch.setattr(convolution, 'overrides', lambda device, gradients=gradients: gradients)
        settings = toys.options(tmp_path, exp_save_dir=str(tmp_path / name), steps=100, update_centers=100, evaluate=False, model=model,
                                optimizer=optimizer, learning_rate=rate)
        watch = Losses()
        trainer = Trainer(settings, data.load('mnist', settings.data_folder), [watch], devices.choose(settings))
        trainer.fit()
        kinds = {node.type for node in trainer._graph.get_operations()}
        assert ('Conv2DBackpropInput' in kinds) == (name == 'plain')
        curves.append(watch.seen)
    np.testing.assert_allclose(curves[1][:10], curves[0][:10], rtol=1e-6)
    np.testing.assert_allclose(curves[1], curves[0], rtol=allowed)
    assert curves[0][-1] < curves[0][0] - 0.01
