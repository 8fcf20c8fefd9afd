"""What is around the embedding layer: dropout, normalisation of the embeddings, length 1, kinds of
preprocessing.
"""

import os

import numpy as np
import pytest

import toys
from gitloss import data, layers, losses, model
from gitloss.backend import keras, tf
from gitloss.data.source import ArraySource, Dataset, DataSpec, Preprocessing
from helpers import graph_session, relative_error
from trainers import run

SPEC = DataSpec('small', (8, 8, 1), 3, Preprocessing(mean=0.1))
IMAGES = np.random.RandomState(0).randint(0, 256, (6, 8, 8, 1)).astype(np.float32)


def weights_and_outputs(**settings):
    """({name: value} of the embedding layers, features, training and inference embeddings)."""
    with graph_session() as session:
        network = model.build(SPEC, 'mnist_cnn', 4, batch_size=6, **settings)
        layers.enter(network, layers.Phase(1, tf.constant(0), slice(0, 6), 6))
        images, around = tf.constant(IMAGES), ('embeddings', 'embedding_norm')
        trained, inferred = network(images, training=True), network(images)
        features = keras.Model(network.input, network.get_layer('flatten').output)(images)
        session.run(tf.global_variables_initializer())
        found = {v.op.name: v for v in network.weights if v.op.name.split('/')[0] in around}
        return session.run([found, features, trained, inferred])


def test_by_default_there_is_the_dense_layer_alone():
    weights, features, trained, inferred = weights_and_outputs()
    assert sorted(weights) == ['embeddings/bias', 'embeddings/kernel']
    np.testing.assert_array_equal(trained, inferred)
    wanted = features.astype(np.float64).dot(weights['embeddings/kernel'])
    assert relative_error(inferred, wanted) < 1e-5


def test_normalised_embeddings_have_neither_bias_nor_gamma():
    """In training (y - mean) / sqrt(variance + 2e-5) over the batch, y = features kernel: beta is
    still 0. In inference y / sqrt(1 + 2e-5), because the moving averages are 0 and 1.
    """
    weights, features, trained, inferred = weights_and_outputs(embedding_norm=True)
    parts = ['embedding_norm/' + name for name in ('beta', 'moving_mean', 'moving_variance')]
    assert sorted(weights) == [*parts, 'embeddings/kernel']
    y = features.astype(np.float64).dot(weights['embeddings/kernel'])
    assert relative_error(trained, (y - y.mean(0)) / np.sqrt(y.var(0) + 2e-5)) < 1e-4
    assert relative_error(inferred, y / np.sqrt(1 + 2e-5)) < 1e-5


@pytest.mark.parametrize('norm', [False, True])
def test_normalize_scales_to_length_1_last(norm):
    _, _, trained, inferred = weights_and_outputs(embedding_norm=norm)
    _, _, *scaled = weights_and_outputs(embedding_norm=norm, normalize=True)
    for plain, found in zip((trained, inferred), scaled):
        plain = plain.astype(np.float64)
        assert relative_error(found, plain / np.linalg.norm(plain, axis=1)[:, None]) < 1e-5


def test_dropout_drops_features_in_training_alone():
    """The embeddings are a dense layer of the features, of which the mask of seed and step keeps
    about half, scaled by 2.
    """
    weights, features, trained, inferred = weights_and_outputs(dropout=0.5)
    with graph_session() as session:
        phase = layers.Phase(1, tf.constant(0), slice(0, 6), 6)
        kept = session.run(phase.uniform([6, features.shape[1]], 1)) >= 0.5
    kernel = weights['embeddings/kernel']
    wanted = (features.astype(np.float64) * kept * 2).dot(kernel)
    assert relative_error(trained, wanted) < 1e-5
    assert relative_error(inferred, features.astype(np.float64).dot(kernel)) < 1e-5


@pytest.mark.parametrize('form', ['elementwise', 'pairwise'])
def test_the_cosine_distance_of_unit_embeddings_is_that_of_any_length(form):
    """It scales rows to length 1 itself: values and gradients with respect to the plain embeddings
    are the same, whether they are scaled before or not.
    """
    random = np.random.RandomState(1)
    embeddings, centers = random.normal(size=(2, 6, 4)).astype(np.float32)
    found = []
    for normalize in (False, True):
        with graph_session() as session:
            plain = tf.constant(embeddings)
            rows = model.UnitLength()(plain) if normalize else plain
            settings = dict(form=form, distance='cosine')
            total = losses.center_term(rows, centers, **settings)
            labels = np.int32([0, 0, 1, 1, 2, 2])
            total += losses.git_term(rows, labels, centers, **settings)
            found.append(session.run([total, tf.gradients(total, plain)[0]]))
    assert relative_error(found[1][0], found[0][0]) < 1e-6
    assert relative_error(found[1][1], found[0][1]) < 1e-5


# --- preprocessing --------------------------------------------------------------------------------


def dataset():
    source = ArraySource(IMAGES.astype(np.uint8), np.arange(6) % 3)
    return Dataset(SPEC, source, source)


def network_input(spec):
    with graph_session() as session:
        network = model.build(spec, 'mnist_cnn', 2)
        session.run(tf.global_variables_initializer())
        return session.run(network.get_layer('preprocess').output, {network.input: IMAGES})


def test_centered_pixels_are_exact():
    """(pixels - 127.5) / 128 has at most nine binary digits: float32 holds it."""
    spec = data.preprocessed(dataset(), 'centered').spec
    assert spec.preprocessing == data.CENTERED
    np.testing.assert_array_equal(network_input(spec), (IMAGES - 127.5) / 128)


def test_auto_is_that_of_the_loader_and_mean_image_that_of_the_training_images():
    assert data.preprocessed(dataset(), 'auto').spec is SPEC
    spec = data.preprocessed(dataset(), 'mean_image').spec
    wanted = IMAGES.astype(np.float64) / 255
    assert relative_error(network_input(spec), wanted - wanted.mean(0)) < 1e-6


@pytest.mark.parametrize(
    'change, name, said',
    [
        ({}, 'imagenet', '^preprocessing: expected one of auto, mean_image, centered. Received'),
        ({'train': None}, 'centered', '^--data_path: expected a data set with the splits train'),
    ],
)
def test_mistakes_are_named(change, name, said):
    with pytest.raises(ValueError, match=said):
        data.preprocessed(dataset()._replace(**change), name)


def test_fine_tuning_keeps_the_preprocessing(tmp_path, capsys):
    """Its mean image comes with the weights; another divisor would be a silent mistake."""
    first = toys.options(tmp_path, steps=1, evaluate=False)
    assert run.main(toys.flags_of(first)) == 0
    tuned = toys.options(
        tmp_path,
        init_checkpoint=first.run_dir,
        preprocessing='centered',
        exp_save_dir=str(tmp_path / 'tuned'),
    )
    capsys.readouterr()
    assert run.main(toys.flags_of(tuned)) == 2
    path = os.path.join(first.run_dir, 'ckpt', 'step-00000001')
    assert capsys.readouterr().err.splitlines()[-1] == (
        f'trainers.run: --preprocessing: expected pixels / 255 as in {path}. Received: pixels / 128'
    )
