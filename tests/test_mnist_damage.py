"""Files of MNIST that are missing, damaged or forged: each is named in one line."""

import gzip
import hashlib
import os

import numpy as np
import pytest

from gitloss import data
from gitloss.data import mnist
from mnist_files import NAMES, arrays_of, assert_loaded, write_idx
from toys import idx_bytes


def _refused(path, *parts):
    with pytest.raises(ValueError) as caught:
        mnist.load_mnist(str(path))
    message = str(caught.value)
    for part in parts + ('expected', 'Received'):
        assert part in message
    assert '\n' not in message
    return message


def test_unknown_data_set():
    with pytest.raises(ValueError, match="dataset: expected one of mnist. Received: 'imagenet'"):
        data.load('imagenet', '.')


def test_nothing_there(tmp_path):
    _refused(tmp_path / 'nowhere', 'nowhere')
    _refused(tmp_path, 'train-images-idx3-ubyte.gz', 'train-images.idx3-ubyte', str(tmp_path))


@pytest.mark.parametrize('key', sorted(NAMES))
def test_a_missing_file_is_named(tmp_path, key):
    folder = write_idx(tmp_path, arrays_of())
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
    folder = write_idx(tmp_path, arrays_of(), zipped)
    change, expected = DAMAGES[damage]
    path = tmp_path / (NAMES['y_train'] + ('.gz' if zipped else ''))
    content = change(idx_bytes(arrays_of()['y_train']))
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
    folder = write_idx(tmp_path, arrays_of(), zipped=True)
    path = tmp_path / (NAMES['x_test'] + '.gz')
    path.write_bytes(change(path.read_bytes()))
    _refused(folder, str(path))


def test_checksums(tmp_path):
    """Files listed in SHA256SUMS must match; listed files that are missing (unpacked, say) are
    ignored.
    """
    arrays = arrays_of()
    folder = write_idx(tmp_path, arrays)
    sums = ''.join(
        f'{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n'
        for name in NAMES.values()
    )
    (tmp_path / 'SHA256SUMS').write_text(sums + '0' * 64 + '  elsewhere.gz\n')
    assert_loaded(mnist.load_mnist(folder), arrays)
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

    arrays = dict(arrays_of(), y_train=np.array([Evil()], object))
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
    np.savez(str(path), **arrays_of())
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
    np.savez(str(path), **dict(arrays_of(), **changes))
    _refused(path, str(path), expected)


def test_a_folder_that_is_a_broken_file(tmp_path):
    (tmp_path / 'train.csv').write_text('1,2,3')
    _refused(tmp_path / 'train.csv', 'train.csv')
