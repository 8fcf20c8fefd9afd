"""The files of MNIST: what is read, and how it is split."""

import hashlib
import os

import numpy as np
import pytest

from gitloss import data
from gitloss.data import mnist
from helpers import pixels
from mnist_files import NAMES, arrays_of, assert_loaded, write_idx

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize('zipped', [False, True])
@pytest.mark.parametrize('dotted', [False, True])
def test_idx_round_trip(tmp_path, zipped, dotted):
    arrays = arrays_of()
    dataset = data.load('mnist', write_idx(tmp_path, arrays, zipped, dotted))
    assert_loaded(dataset, arrays)
    assert dataset.spec.num_classes == 3


def test_raw_and_zipped_files_mix(tmp_path):
    arrays = arrays_of()
    write_idx(tmp_path, {key: arrays[key] for key in ('x_train', 'y_test')}, zipped=True)
    assert_loaded(
        mnist.load_mnist(
            write_idx(tmp_path, {key: arrays[key] for key in ('y_train', 'x_test')}, dotted=True)
        ),
        arrays,
    )


@pytest.mark.parametrize('by_folder', [False, True])
@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_npz_round_trip(tmp_path, by_folder, save):
    arrays = arrays_of()
    save(str(tmp_path / 'mnist.npz'), **arrays)
    assert_loaded(mnist.load_mnist(str(tmp_path if by_folder else tmp_path / 'mnist.npz')), arrays)


def test_int64_labels_in_an_npz_are_accepted(tmp_path):
    arrays = arrays_of()
    np.savez(str(tmp_path / 'a.npz'), **dict(arrays, y_train=arrays['y_train'].astype(np.int64)))
    assert_loaded(mnist.load_mnist(str(tmp_path / 'a.npz')), arrays)


# --- splitting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'train, wanted, held', [(10, 5000, 1), (19, 5000, 1), (200, 5000, 20), (200, 7, 7)]
)
def test_small_sets_hold_a_tenth_out_at_most(tmp_path, train, wanted, held):
    dataset = mnist.load_mnist(write_idx(tmp_path, arrays_of(train=train)), validation_size=wanted)
    assert (len(dataset.valid.labels), len(dataset.train.labels)) == (held, train - held)


def test_mean_image_by_hand(tmp_path):
    """Twenty images, two held out; of the other eighteen one has a pixel of 255: mean 1 / 18."""
    images = np.zeros([20, 2, 2], np.uint8)
    images[0, 0, 0], images[19, 1, 0] = 200, 255
    dataset = mnist.load_mnist(
        write_idx(tmp_path, dict(arrays_of(train=20, height=2, width=2), x_train=images))
    )
    mean = dataset.spec.preprocessing.mean
    np.testing.assert_array_equal(mean[..., 0], np.float32([[0, 0], [1 / 18, 0]]))
    assert mean.dtype == np.float32 and mean.shape == (2, 2, 1)


@pytest.fixture(scope='module')
def embedded():
    return data.load('mnist', os.path.join(ROOT, 'data', 'mnist'))


def test_the_embedded_mnist(embedded):
    """55,000 / 5,000 / 10,000; the training set begins 5 0 4 1 9 2 1 3 1 4, the test set 7 2 1 0 4
    1 4 9 5 9.
    """
    assert [len(split) for split in embedded[1:4]] == [55000, 5000, 10000]
    assert [split.image_shape for split in embedded[1:4]] == [(28, 28, 1)] * 3
    assert embedded.spec[:3] == ('mnist', (28, 28, 1), 10)
    assert embedded.valid.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert embedded.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    everything = np.concatenate([embedded.train.labels, embedded.valid.labels])
    assert np.bincount(everything).tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]


def test_the_embedded_mean_image(embedded):
    """The float64 mean of the 55,000 training images, rounded once."""
    exact = np.mean(pixels(embedded.train).astype(np.float64) / 255.0, axis=0)
    np.testing.assert_allclose(embedded.spec.preprocessing.mean, exact, rtol=1e-7, atol=0)


def test_the_embedded_files_have_checksums():
    folder = os.path.join(ROOT, 'data', 'mnist')
    with open(os.path.join(folder, 'SHA256SUMS')) as file:
        named = dict(reversed(line.split()) for line in file)
    assert sorted(named) == sorted(name + '.gz' for name in NAMES.values())
    for name, expected in named.items():
        with open(os.path.join(folder, name), 'rb') as file:
            assert hashlib.sha256(file.read()).hexdigest() == expected
