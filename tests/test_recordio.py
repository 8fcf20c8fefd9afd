"""Record files of MXNet: records whole and in parts, headers, indexes, damage."""

import os
import struct

import numpy as np
import pytest

from gitloss.data.recordio import open_recordio
from portraits import SHAPE, drawn, encoded
from records import MAGIC, faces, frame, record, write_recordio

LABELS = [10, 9, 10, 2]
EXPECTED = [drawn(label, number) for number, label in enumerate(LABELS)]


@pytest.mark.parametrize('header', [True, False])
@pytest.mark.parametrize('name', ['', 'train.rec'])
def test_images_and_labels_are_read(tmp_path, header, name):
    """Numbers are the names, by their values; the records of identities are no images."""
    folder = write_recordio(tmp_path, faces(LABELS, header))
    source = open_recordio(os.path.join(folder, name) if name else folder, SHAPE)
    assert source.names == ['2', '9', '10'] and source.labels.tolist() == [2, 1, 2, 0]
    np.testing.assert_array_equal(source.images(np.arange(4)), EXPECTED)
    np.testing.assert_array_equal(source.read(np.array([3, 0])), [EXPECTED[3], EXPECTED[0]])
    assert source.where(1) == f'{tmp_path}/train.rec: record {1 + header}'


@pytest.mark.parametrize('places', [[0], [4, 8], [3], [0, 4, 12, 40]])
def test_records_with_the_magic_number_are_joined_again(tmp_path, places):
    """An image in which the magic number occurs, at multiples of 4 of the record or not: the writer
    cuts it out at the former. 12 = 24 bytes of header - 12 of what Pillow ignores behind an image.
    """
    image = bytearray(encoded(drawn(1), 'BMP') + bytes(64))
    for place in places:
        start = len(image) - 64 + place
        image[start : start + 4] = MAGIC
    images = {key: bytes(image[key:]) for key in range(4)}
    folder = write_recordio(tmp_path, {key: record(key, each) for key, each in images.items()})
    with open(os.path.join(folder, 'train.rec'), 'rb') as file:
        content = file.read()
    flags = {
        content[at + 7] >> 5 for at in range(0, len(content), 4) if content[at : at + 4] == MAGIC
    }
    assert {1, 3} <= flags  # one of four shifts is at a multiple of 4
    source = open_recordio(folder, SHAPE)
    assert [source.encoded(key) for key in range(4)] == list(images.values())


def test_the_index_is_in_any_order_and_may_leave_out_records(tmp_path):
    folder = write_recordio(tmp_path, faces(LABELS))
    path = tmp_path / 'train.idx'
    lines = path.read_text().splitlines()
    path.write_text('\r\n'.join(reversed(lines[:2] + lines[3:])))
    source = open_recordio(folder, SHAPE)
    np.testing.assert_array_equal(source.read(np.arange(3)), [EXPECTED[i] for i in (0, 2, 3)])


def test_the_fingerprint_follows_the_index(tmp_path):
    prints = {
        open_recordio(write_recordio(tmp_path / str(n), faces(labels)), SHAPE).fingerprint
        for n, labels in enumerate(([1, 2, 2], [1, 1, 2], [1, 2, 2, 2], [1, 2, 2]))
    }
    assert len(prints) == 3


def _edit(path, edit):
    content = bytearray(path.read_bytes())
    path.write_bytes(bytes(edit(content) or content))


def _overwrite(content, start, value):
    content[start : start + len(value)] = value


DAMAGE = {
    'cut short': ('rec', lambda c: c[:-300], 'record [0-9]: expected a file of .* it is cut short'),
    'empty': ('rec', lambda c: c[:1], 'record 0: expected a frame of RecordIO at 0'),
    'no magic': ('rec', lambda c: _overwrite(c, 0, b'\1'), 'record 0: expected a frame of Rec'),
    'flag 2': ('rec', lambda c: _overwrite(c, 7, b'\x40'), 'record 0: expected parts in order'),
    'flag 4': ('rec', lambda c: _overwrite(c, 7, b'\x80'), 'record 0: expected parts in order'),
    'NaN': ('rec', lambda c: _overwrite(c, 12, struct.pack('<f', np.nan)), 'a label from 0 on'),
    'half': ('rec', lambda c: _overwrite(c, 12, struct.pack('<f', 0.5)), 'a label from 0 on'),
    'text': ('idx', lambda c: b'\x80pickle', 'idx: expected lines of a key and an offset'),
    'no index': ('idx', lambda c: b' ', 'idx: expected lines of a key and an offset'),
    'odd': ('idx', lambda c: c + b'7', 'idx: expected lines of a key and an offset'),
    'twice': ('idx', lambda c: c + c, 'idx: expected each key once'),
    'other': ('idx', lambda c: b'0\t0\n1\t4\n', 'record 1: expected a frame of RecordIO at 4, as'),
    'far': ('idx', lambda c: b'0\t0\n1\t' + b'9' * 30, 'record 1: expected a frame of RecordIO'),
}


@pytest.mark.parametrize('name', sorted(DAMAGE))
def test_damage_is_named(tmp_path, name):
    ending, edit, line = DAMAGE[name]
    folder = write_recordio(tmp_path, faces(LABELS, header=False))
    _edit(tmp_path / f'train.{ending}', edit)
    with pytest.raises(ValueError, match=f'^{tmp_path}/train.*{line}'):
        open_recordio(folder, SHAPE)


def test_the_index_of_another_file_is_noticed(tmp_path):
    """Both files are whole."""
    write_recordio(tmp_path / 'a', faces(LABELS))
    write_recordio(tmp_path / 'b', faces(LABELS[::-1] + [7] * 5))
    os.replace(str(tmp_path / 'b' / 'train.idx'), str(tmp_path / 'a' / 'train.idx'))
    with pytest.raises(ValueError, match='a/train.rec: record [0-9]+: expected a'):
        open_recordio(str(tmp_path / 'a'), SHAPE)


@pytest.mark.parametrize('missing', ['train.rec', 'train.idx'])
def test_a_missing_file_is_named(tmp_path, missing):
    folder = write_recordio(tmp_path, faces(LABELS))
    os.remove(os.path.join(folder, missing))
    with pytest.raises(OSError, match=missing):
        open_recordio(folder, SHAPE)


def test_records_without_images_are_refused_when_they_are_read(tmp_path):
    broken = {
        0: record(1, b''),
        1: record(2, encoded(drawn(1))[:50]),
        2: b'short',
        3: record(1, b''),
    }
    source = open_recordio(write_recordio(tmp_path, {k: broken[k] for k in (0, 1)}), SHAPE)
    for index in range(2):
        with pytest.raises(ValueError, match=f'train.rec: record {index}: expected an '):
            source.read(np.array([index]))
    with pytest.raises(ValueError, match='record 2: expected 24 bytes of header. Received: 5'):
        open_recordio(write_recordio(tmp_path, broken), SHAPE)


def test_a_header_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match='train.rec: expected images. Received: none'):
        open_recordio(write_recordio(tmp_path, faces([])), SHAPE)


def test_a_frame_of_the_writer(tmp_path):
    """The bytes of MXNet's documentation: magic, length 5, 3 bytes of padding."""
    assert frame(b'hello') == bytes.fromhex('0a23d7ce 05000000') + b'hello\0\0\0'
