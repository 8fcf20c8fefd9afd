"""The files of MNIST: what is read, what is rejected, and how they are split."""

import gzip
import hashlib
import os

import numpy as np
import pytest

from gitloss import data
from gitloss.data import mnist
from helpers import pixels
from toys import idx_bytes

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = {
    'x_train': 'train-images-idx3-ubyte',
    'y_train': 'train-labels-idx1-ubyte',
    'x_test': 't10k-images-idx3-ubyte',
    'y_test': 't10k-labels-idx1-ubyte',
}


def _arrays(train=40, test=10, height=5, width=4, classes=3):
    random = np.random.RandomState(0)
    arrays = {}
    for part, count in (('train', train), ('test', test)):
        arrays['x_' + part] = random.randint(0, 256, (count, height, width)).astype(np.uint8)
        arrays['y_' + part] = (np.arange(count) % classes).astype(np.uint8)
    return arrays


def _write(folder, arrays, zipped=False, dotted=False):
    """Writes the four IDX files; `dotted` is the naming `train-images.idx3-ubyte`."""
    for key, array in arrays.items():
        name = NAMES[key].replace('-idx', '.idx') if dotted else NAMES[key]
        content = idx_bytes(array)
        (folder / (name + ('.gz' if zipped else ''))).write_bytes(
            gzip.compress(content) if zipped else content
        )
    return str(folder)


def _same(dataset, arrays):
    """Checks that `arrays` were loaded: the first tenth held out, nothing lost, nothing changed."""
    held = len(arrays['y_train']) // 10
    np.testing.assert_array_equal(
        np.concatenate([pixels(dataset.valid), pixels(dataset.train)])[..., 0], arrays['x_train']
    )
    np.testing.assert_array_equal(
        np.concatenate([dataset.valid.labels, dataset.train.labels]), arrays['y_train']
    )
    np.testing.assert_array_equal(pixels(dataset.test)[..., 0], arrays['x_test'])
    np.testing.assert_array_equal(dataset.test.labels, arrays['y_test'])
    assert len(dataset.valid.labels) == held
    assert all(
        pixels(split).dtype == np.uint8 and split.labels.dtype == np.int32 for split in dataset[1:]
    )


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize('zipped', [False, True])
@pytest.mark.parametrize('dotted', [False, True])
def test_idx_round_trip(tmp_path, zipped, dotted):
    arrays = _arrays()
    dataset = data.load('mnist', _write(tmp_path, arrays, zipped, dotted))
    _same(dataset, arrays)
    assert dataset.spec.num_classes == 3


def test_raw_and_zipped_files_mix(tmp_path):
    arrays = _arrays()
    _write(tmp_path, {key: arrays[key] for key in ('x_train', 'y_test')}, zipped=True)
    _same(
        mnist.load_mnist(
            _write(tmp_path, {key: arrays[key] for key in ('y_train', 'x_test')}, dotted=True)
        ),
        arrays,
    )


@pytest.mark.parametrize('by_folder', [False, True])
@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_npz_round_trip(tmp_path, by_folder, save):
    arrays = _arrays()
    save(str(tmp_path / 'mnist.npz'), **arrays)
    _same(mnist.load_mnist(str(tmp_path if by_folder else tmp_path / 'mnist.npz')), arrays)


def test_int64_labels_in_an_npz_are_accepted(tmp_path):
    arrays = _arrays()
    np.savez(str(tmp_path / 'a.npz'), **dict(arrays, y_train=arrays['y_train'].astype(np.int64)))
    _same(mnist.load_mnist(str(tmp_path / 'a.npz')), arrays)


# --- refusing -------------------------------------------------------------------------------------


def _refused(path, *parts):
    with pytest.raises(ValueError) as caught:
        mnist.load_mnist(str(path))
    message = str(caught.value)
    for part in parts + ('expected', 'Received'):
        assert part in message
    assert '\n' not in message
    return message


def test_unknown_data_set():
    with pytest.raises(ValueError, match="dataset: expected one of .*mnist.* Received: 'imagenet'"):
        data.load('imagenet', '.')


def test_nothing_there(tmp_path):
    _refused(tmp_path / 'nowhere', 'nowhere')
    _refused(tmp_path, 'train-images-idx3-ubyte.gz', 'train-images.idx3-ubyte', str(tmp_path))


@pytest.mark.parametrize('key', sorted(NAMES))
def test_a_missing_file_is_named(tmp_path, key):
    folder = _write(tmp_path, _arrays())
    os.remove(os.path.join(folder, NAMES[key]))
    _refused(folder, NAMES[key])


# Damages to the labels of the training set: 40 values behind a header of 8 bytes.
DAMAGES = {
    'truncated': (lambda content: content[:-1], ('40 bytes', 'Received: 39')),
    'too_long': (lambda content: content + b'\0', ('40 bytes', 'Received: 41')),
    'empty': (lambda content: b'', ('magic 00000801', 'empty file')),
    'half_a_header': (lambda content: content[:6], ('header of 8 bytes', '6 bytes')),
    'another_type': (lambda content: b'\0\0\x0d\1' + content[4:], ('magic 00000801', '00000d01')),
    'another_rank': (lambda content: b'\0\0\x08\3' + content[4:], ('magic 00000801', '00000803')),
    'not_idx': (lambda content: b'<html><body>', ('magic 00000801', '3c68746d')),
    'forged_size': (
        lambda content: content[:4] + b'\xff\xff\xff\xff' + content[8:],
        ('4294967295 bytes', 'Received: 40'),
    ),
    'no_samples': (
        lambda content: idx_bytes(np.zeros(0, np.uint8)),
        ('as many labels as images', '40 images, 0 labels'),
    ),
    'one_label_too_few': (
        lambda content: idx_bytes(np.zeros(39, np.uint8)),
        ('as many labels as images', '40 images, 39 labels'),
    ),
}


@pytest.mark.parametrize('zipped', [False, True])
@pytest.mark.parametrize('damage', sorted(DAMAGES))
def test_damaged_idx_files_are_named(tmp_path, damage, zipped):
    folder = _write(tmp_path, _arrays(), zipped)
    change, expected = DAMAGES[damage]
    path = tmp_path / (NAMES['y_train'] + ('.gz' if zipped else ''))
    content = change(idx_bytes(_arrays()['y_train']))
    path.write_bytes(gzip.compress(content) if zipped else content)
    # No single file is at fault if the counts differ.
    where = folder if 'labels as images' in expected[0] else str(path)
    _refused(folder, where, *expected)


@pytest.mark.parametrize(
    'change',
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-4],
        lambda content: b'',
        lambda content: b'\x1f\x8b',
        lambda content: b'not gzip',
        lambda content: content[:15] + bytes([content[15] ^ 255]) + content[16:],
        lambda content: content[:-8] + b'\0\0\0\0' + content[-4:],
    ],
)
def test_damaged_gzip_files_are_named(tmp_path, change):
    folder = _write(tmp_path, _arrays(), zipped=True)
    path = tmp_path / (NAMES['x_test'] + '.gz')
    path.write_bytes(change(path.read_bytes()))
    _refused(folder, str(path))


def test_checksums(tmp_path):
    """Files listed in SHA256SUMS must match; listed files that are missing (unpacked, say) are
    ignored.
    """
    arrays = _arrays()
    folder = _write(tmp_path, arrays)
    sums = ''.join(
        f'{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n'
        for name in NAMES.values()
    )
    (tmp_path / 'SHA256SUMS').write_text(sums + '0' * 64 + '  elsewhere.gz\n')
    _same(mnist.load_mnist(folder), arrays)
    path = tmp_path / NAMES['x_test']
    content = bytearray(path.read_bytes())
    good = hashlib.sha256(bytes(content)).hexdigest()
    content[-1] ^= 1  # the IDX format cannot detect it
    path.write_bytes(bytes(content))
    _refused(folder, str(path), good, hashlib.sha256(bytes(content)).hexdigest())
    (tmp_path / 'SHA256SUMS').write_text('no sum at all\n')
    _refused(folder, 'SHA256SUMS', 'no sum at all')
    (tmp_path / 'SHA256SUMS').write_text('0' * 64 + '  ../escape\n')
    _refused(folder, 'SHA256SUMS', '../escape')


def test_pickled_arrays_are_refused(tmp_path):
    """Unpickling executes what the file says; here it would write a file."""

    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / 'was_run'), 'w')

    arrays = dict(_arrays(), y_train=np.array([Evil()], object))
    np.savez(str(tmp_path / 'mnist.npz'), **arrays)
    _refused(tmp_path, str(tmp_path / 'mnist.npz'), 'plain arrays')
    assert not (tmp_path / 'was_run').exists()


@pytest.mark.parametrize(
    'change, expected',
    [
        (lambda content: content[: len(content) // 2], 'plain arrays'),
        (lambda content: b'', 'plain arrays'),
        (lambda content: b'not a zip file', 'plain arrays'),
        (lambda content: content.replace(b'y_test', b'z_test'), 'y_test missing'),
        (
            lambda content: content[:300] + bytes([content[300] ^ 255]) + content[301:],
            'plain arrays',
        ),
    ],
)
def test_damaged_npz_files_are_named(tmp_path, change, expected):
    path = tmp_path / 'some.npz'
    np.savez(str(path), **_arrays())
    path.write_bytes(change(path.read_bytes()))
    _refused(path, str(path), expected)


@pytest.mark.parametrize(
    'changes, expected',
    [
        ({'x_train': np.zeros([40, 5, 4])}, 'float64 [40, 5, 4]'),
        ({'x_test': np.zeros([10, 20], np.uint8)}, 'uint8 [10, 20]'),
        ({'y_train': np.zeros([40, 3], np.uint8)}, 'uint8 [40, 3]'),
        ({'y_train': np.zeros(40)}, 'float64 [40]'),
        ({'y_train': np.full(40, -1)}, '-1 to -1'),
        ({'y_test': np.zeros(9, np.uint8)}, '10 images, 9 labels'),
        ({'x_test': np.zeros([10, 6, 6], np.uint8)}, '[5, 4] and [6, 6]'),
        ({'x_test': np.zeros([0, 5, 4], np.uint8), 'y_test': np.zeros(0, np.uint8)}, '[0, 5, 4]'),
        ({'x_train': np.zeros([40, 0, 4], np.uint8)}, '[40, 0, 4]'),
        (
            {'x_train': np.zeros([9, 5, 4], np.uint8), 'y_train': np.zeros(9, np.uint8)},
            'at least 10 training images',
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, changes, expected):
    path = tmp_path / 'some.npz'
    np.savez(str(path), **dict(_arrays(), **changes))
    _refused(path, str(path), expected)


def test_a_folder_that_is_a_broken_file(tmp_path):
    (tmp_path / 'train.csv').write_text('1,2,3')
    _refused(tmp_path / 'train.csv', 'train.csv')


# --- splitting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'train, wanted, held', [(10, 5000, 1), (19, 5000, 1), (200, 5000, 20), (200, 7, 7)]
)
def test_small_sets_hold_a_tenth_out_at_most(tmp_path, train, wanted, held):
    dataset = mnist.load_mnist(_write(tmp_path, _arrays(train=train)), validation_size=wanted)
    assert (len(dataset.valid.labels), len(dataset.train.labels)) == (held, train - held)


def test_mean_image_by_hand(tmp_path):
    """Twenty images, two held out; of the other eighteen one has a pixel of 255: mean 1 / 18."""
    images = np.zeros([20, 2, 2], np.uint8)
    images[0, 0, 0], images[19, 1, 0] = 200, 255
    dataset = mnist.load_mnist(
        _write(tmp_path, dict(_arrays(train=20, height=2, width=2), x_train=images))
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
    assert [len(split) for split in embedded[1:]] == [55000, 5000, 10000]
    assert [split.image_shape for split in embedded[1:]] == [(28, 28, 1)] * 3
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
