"""gitloss.keras on several replicas, beside the trainer, and what it refuses."""

import functools
import importlib
import json
import os

import numpy as np
import pytest

import forking
import keras_models
import toys
from gitloss import data, losses
from gitloss.backend import keras as keras2
from gitloss.backend import tf
from keras_models import Kit, fitted, samples, value
from runs import Watch, trainer_of

ONE = tf.__version__.startswith('1.')
two = pytest.mark.skipif(ONE, reason='fit of TensorFlow 1.15 has no train_step')
kerases = pytest.mark.parametrize('name', sorted(keras_models.KERASES))


def assert_close(one, other, tolerance):
    """Nested dictionaries and lists of numbers."""
    if isinstance(one, dict):
        assert set(one) == set(other)
        for name in one:
            assert_close(one[name], other[name], tolerance)
    else:
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@two
@kerases
def test_replicas_train_on_the_whole_batch(name, tmp_path):
    """Two replicas with half of each batch give what one gives with all of it: pairs of samples of
    different replicas count, and a center moves by the samples of both.
    """
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'keras_replicas.py')
    done = forking.run([program, name], tmp_path)
    assert done.returncode == 0, done.stderr
    one, two_replicas = json.loads(done.stdout.splitlines()[-1])
    assert one['pairwise']['updates'] == [46, 46, 44, 44]  # two epochs of 23, 23, 22, 22
    assert_close(one, two_replicas, 1e-4)


class Weights(Watch):
    """Keeps the values of before the first step too."""

    def on_train_begin(self, logs=None):
        net = self.handle.net
        variables = net.model.weights + net.classifier.weights
        values = self.handle.session.run(variables)
        self.weights = {v.op.name: value for v, value in zip(variables, values)}

    def on_train_end(self, logs=None):
        self.centers = self.handle.session.run(self.handle.net.center_table.centers)


def twin(kit, weights):
    """The toy network and its classifier in a Keras, with these weights: (network, head)."""
    layers = kit.keras.layers
    network = kit.keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(8, 3, padding='same', activation='relu', name='conv1_1'),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 3, padding='same', activation='relu', name='conv2_1'),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(2, name='embeddings'),
        ]
    )
    head = kit.keras.Sequential(
        [layers.Input((2,)), layers.PReLU(name='prelu'), layers.Dense(4, name='logits')]
    )
    for layer in network.layers + head.layers:
        if layer.weights:
            names = ['alpha'] if layer.name == 'prelu' else ['kernel', 'bias']
            layer.set_weights([weights[f'{layer.name}/{name}'] for name in names])
    return network, head


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A function of the form: (options, dataset, Weights) of fifty steps by the trainer."""

    def train(form):
        folder = tmp_path_factory.mktemp(form)
        settings = toys.options(
            folder, steps=50, optimizer='momentum', learning_rate=0.01, git_loss_form=form
        )
        dataset, watch = data.load('mnist', settings.data_folder), Weights()
        trainer_of(settings, [watch], dataset).fit()
        return settings, dataset, watch

    return functools.lru_cache(None)(train)


@two
@kerases
@pytest.mark.parametrize('form', ['elementwise', 'pairwise'])
def test_fifty_steps_are_those_of_the_trainer(trained, name, form):
    """The same weights, batches and rate: momentum, constant. Images enter as the trainer's
    preprocessing leaves them.
    """
    (settings, dataset, watch), kit = trained(form), Kit(name)
    network, head = twin(kit, watch.weights)
    model = kit.compiled(0.01, network, head=head, form=form)
    stream = data.BatchStream(dataset.train, settings.batch_size, settings.seed)
    seen = {'loss': [], 'center_loss': [], 'git_loss': [], 'git_floor': []}
    mean = watch.weights['preprocess/mean_image']
    for step in range(50):
        images, labels = stream.batch(step)
        prepared = images / np.float32(dataset.spec.preprocessing.divisor) - mean
        logs = model.train_on_batch(prepared, labels, return_dict=True)
        model.reset_metrics()
        for term in seen:
            seen[term].append(float(logs[term]))
    for term, values in seen.items():
        expected = [logs[term] for logs in watch.logs]
        np.testing.assert_allclose(values, expected, rtol=1e-4, err_msg=term)
    np.testing.assert_allclose(value(model.centers), watch.centers, rtol=1e-4, atol=1e-4)


def refused(message, action, *arguments, **settings):
    with pytest.raises(ValueError) as error:
        action(*arguments, **settings)
    assert message in str(error.value)


@two
@kerases
def test_labels_that_are_no_integers_are_refused(name):
    model, (images, labels) = Kit(name).compiled(), samples(16)
    expected = 'y: expected integer labels [batch] or [batch, 1]'
    for given in (np.eye(4, dtype=np.float32)[labels], np.eye(4, dtype=int)[labels]):
        refused(expected, model.train_on_batch, images, given)
    refused(expected, model.test_on_batch, images, labels.astype(np.float32))
    refused(expected, model.train_step, images)
    Kit(name).compiled().train_on_batch(images, labels[:, None])  # as some loaders give them


@two
@kerases
def test_what_cannot_work_is_refused_when_the_model_is_made(name):
    kit = Kit(name)
    other = Kit(next(each for each in keras_models.KERASES if each != name))
    make, network = kit.model, kit.network()
    refused('network: expected a model or layer of ', make, other.network(), 4)
    refused('head: expected a model or layer of ', make, network, 4, head=np.dot)
    refused('num_classes: expected at least 1. Received: 0', make, network, 0)
    refused('alpha: expected a number in [0, 1]. Received: 2', make, network, 4, alpha=2)
    refused('lambda_g: expected a number >= 0. Received: -1', make, network, 4, lambda_g=-1)
    refused('form: expected ', make, network, 4, form='square')
    unbuilt = kit.keras.Sequential([kit.keras.layers.Dense(3)])
    refused('embedding_dim: expected a network with embeddings [batch, dim]', make, unbuilt, 4)
    maps = kit.keras.Sequential(
        [kit.keras.layers.Input((8, 8, 1)), kit.keras.layers.Conv2D(3, 3, name='maps')]
    )
    refused('embedding_dim: expected a network with embeddings [batch, dim]', make, maps, 4)
    with tf.Graph().as_default():
        refused('GitLossModel: expected TensorFlow 2 in eager mode', make, network, 4)


@two
def test_a_strategy_that_keras_has_no_fit_for_is_refused():
    kit = Kit('keras3')
    with tf.distribute.experimental.CentralStorageStrategy(['cpu:0'], 'cpu:0').scope():
        network = kit.network()
        refused('expected no strategy, or OneDeviceStrategy, ', kit.model, network, 4)


@two
@kerases
def test_a_network_that_is_built_later_needs_the_dimension(name):
    kit = Kit(name)
    layers = kit.keras.layers
    network = kit.keras.Sequential([layers.Flatten(), layers.Dense(3)])
    model = kit.compiled(network=network, embedding_dim=3)
    fitted(model)
    assert np.abs(value(model.centers)).min() > 0
    wrong = kit.compiled(network=kit.network(3), embedding_dim=2)
    refused('network: expected embeddings [batch, 2]', wrong.train_on_batch, *samples(16))


@two
def test_another_backend_of_keras_is_refused(monkeypatch):
    module = importlib.import_module('gitloss.keras.keras3')
    monkeypatch.setattr(module.keras.backend, 'backend', lambda: 'jax')
    refused('expected Keras with KERAS_BACKEND=tensorflow. Received: jax', importlib.reload, module)


@pytest.mark.skipif(not ONE, reason='TensorFlow 2 trains')
def test_tensorflow_1_is_refused():
    for name, expected in (('tf_keras', 'TensorFlow 2. Received: 1.15'), ('keras3', 'Keras 3')):
        refused(expected, importlib.import_module, 'gitloss.keras.' + name)


def trained_in_fit(kind):
    """Trains a tf_keras model with one of the layers for graphs in it."""
    images, labels = np.zeros((8, 3), np.float32), np.arange(8, dtype=np.int32) % 4
    inputs, own = keras2.Input((3,)), keras2.Input((), dtype='int32')
    embeddings = keras2.layers.Dense(2)(inputs)
    model = keras2.Model([inputs, own], embeddings)
    model.add_loss(kind(4)((embeddings, own)))
    model.compile('sgd')
    model.fit([images, labels], verbose=0)


class WithLayer(keras2.Model):
    def __init__(self, kind):
        super().__init__()
        self.dense, self.layer = keras2.layers.Dense(2), kind(4)

    def call(self, inputs, training=None):
        embeddings = self.dense(inputs)
        self.add_loss(self.layer((embeddings, tf.zeros([8], tf.int32))))
        return embeddings


def trained_in_a_subclass(kind):
    model = WithLayer(kind)
    model.compile('sgd', 'mse')
    model.fit(np.zeros((8, 3), np.float32), np.zeros((8, 2), np.float32), batch_size=8, verbose=0)


@pytest.mark.parametrize('kind', [losses.CenterLoss, losses.GitLoss])
@pytest.mark.parametrize('train', [trained_in_fit, trained_in_a_subclass])
def test_layers_for_graphs_are_refused_in_fit(kind, train):
    """Their centers would stay where they are, in silence."""
    refused('expected a tf.Graph and a training loop that runs update()', train, kind)
