"""The .bin files of insightface: what their pickles hold, and what they cannot do."""

import os
import pickle
import time

import numpy as np
import pytest

from gitloss.data.pair_images import open_images
from gitloss.data.pairs import read_pairs
from gitloss.data.pickled import read_bin
from portraits import drawn, encoded

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def written(folder, content):
    path = folder / 'a.bin'
    path.write_bytes(content)
    return str(path)


class Evil:
    def __reduce__(self):
        return os.system, ('touch /tmp/gitloss-was-here',)


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('kind', [bytes, np.array])
def test_a_bin_of_every_protocol(tmp_path, protocol, kind):
    """OpenCV's arrays of encoded bytes, too; the flags may be those of NumPy."""
    contents = [encoded(drawn(1, n)) for n in range(4)]
    images = [np.frombuffer(c, np.uint8) if kind is np.array else kind(c) for c in contents]
    path = written(tmp_path, pickle.dumps((images, [np.bool_(True), False]), protocol))
    assert read_bin(path)[0] == contents and read_bin(path)[1].tolist() == [True, False]
    pairs = read_pairs(path)
    assert pairs.genuine.tolist() == [True, False] and pairs.first.tolist() == [0, 2]
    source = open_images(pairs, path, '', (8, 8, 3))
    assert source.images(np.arange(4)).shape == (4, 8, 8, 3)


def test_a_bin_of_python_2(tmp_path):
    """Its strings are bytes: (['ab', 'cd'], [True]) of protocol 2."""
    content = b'\x80\x02]q\x01(U\x02abq\x02U\x02cdq\x03e]q\x04\x88a\x86q\x05.'
    assert read_bin(written(tmp_path, content))[0] == [b'ab', b'cd']


def test_arrays_of_python_2(tmp_path):
    """The names of their types are bytes, too: U, not X."""
    images = [np.frombuffer(each, np.uint8) for each in (b'ab', b'cd')]
    content = pickle.dumps((images, [True]), 2)
    for name in (b'u1', b'|'):
        unicode = b'X' + bytes([len(name), 0, 0, 0]) + name
        assert unicode in content
        content = content.replace(unicode, b'U' + bytes([len(name)]) + name)
    assert read_bin(written(tmp_path, content))[0] == [b'ab', b'cd']


class Forged:
    """A tuple (function, arguments, state) as what a pickle makes with it."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


RECONSTRUCT = np.zeros(1).__reduce__()[0]
# A type of addresses that says of itself that it has none: NumPy would follow the bytes.
ADDRESSES = Forged(np.dtype, ('O8', False, True), (3, '|', None, None, None, -1, -1, 0))
POINTERS = Forged(RECONSTRUCT, (np.ndarray, (0,), b'b'), (1, (2,), ADDRESSES, False, b'A' * 16))
CHANGED = Forged(np.dtype, ('u1', False, True), (3, 'O', None, None, None, -1, -1, 0))


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize(
    'images, word',
    [
        (POINTERS, 'whole numbers or bool. Received: O8'),
        ([CHANGED], 'an order of bytes. Received: O'),
        ([Forged(np.dtype, (['O'],))], 'a pickle of'),
        (np.array([b'a', b'b']), 'whole numbers or bool. Received: S1'),
        (np.array([b'a', b'b'], object), 'whole numbers or bool. Received: O8'),
    ],
)
def test_types_of_a_bin_are_not_believed(tmp_path, protocol, images, word):
    """The first one ended the process by a segmentation fault."""
    path = written(tmp_path, pickle.dumps((images, [True]), protocol))
    with pytest.raises(ValueError) as caught:
        read_bin(path)
    assert word in str(caught.value) and '\n' not in str(caught.value)


def test_functions_of_a_bin_cannot_be_changed(tmp_path):
    """GLOBAL _codecs.encode, a dictionary, BUILD."""
    path = written(tmp_path, b'\x80\x02c_codecs\nencode\n}X\x01\0\0\0aK\x01sb.')
    with pytest.raises(ValueError, match='Received: the state of a function'):
        read_bin(path)


@pytest.mark.parametrize(
    'content, word',
    [
        (pickle.dumps(([Evil(), b''], [True])), 'bytes and arrays only. Received: posix.system'),
        (
            pickle.dumps(([b'a', b'b'], [True, False])),
            'two images for each bool. Received: 2 and 2',
        ),
        (pickle.dumps([b'a']), 'Received: list'),
        (pickle.dumps(([1, 2], [True])), 'Received: image: expected bytes. Received: int'),
        (b'', 'a pickle of'),
        (b'\x80\x04junk', 'a pickle of'),
        (pickle.dumps(([], [])), 'two images for each bool'),
        (
            b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000\ntS"b"\ntR.',
            '',
        ),
    ],
)
def test_a_bin_that_is_none_executes_nothing(tmp_path, content, word):
    start = time.monotonic()
    with pytest.raises(ValueError) as caught:
        read_bin(written(tmp_path, content))
    assert word in str(caught.value) and '\n' not in str(caught.value)
    assert not os.path.exists('/tmp/gitloss-was-here') and time.monotonic() < start + 30
