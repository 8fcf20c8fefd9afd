"""TFRecord shards that others wrote: identities, damage. Those of a conversion: test_convert.py."""

import os
import re
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest

from gitloss.backend import tf
from gitloss.data import shards
from gitloss.data.tfrecord import open_tfrecord
from portraits import SHAPE, drawn
from records import example, serialised, write_tfrecord


def _written(*images, path='set/a.tfrecord'):
    return write_tfrecord(path, images)


def test_images_of_all_shards_are_read_in_the_order_of_names(here):
    """Labels 5 and 7 become 0 and 1: in their order, not in that of the texts."""
    _written(example(7, 2, 'anna'), path='set/b.tfrecord-00001-of-00002')
    _written(path='set/b.tfrecord-00000-of-00002')
    _written(example(5, 0, 'bob'), example(7, 1, 'anna'))
    (here / 'set' / 'notes.txt').write_text('')
    source = open_tfrecord('set', SHAPE)
    assert source.names == ['bob', 'anna'] and source.labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(source.images(np.arange(3)), [drawn(5), drawn(7, 1), drawn(7, 2)])
    np.testing.assert_array_equal(source.read(np.array([2, 0])), [drawn(7, 2), drawn(5)])
    assert [source.where(index) for index in range(3)] == [
        'set/a.tfrecord: record 0',
        'set/a.tfrecord: record 1',
        'set/b.tfrecord-00001-of-00002: record 0',
    ]


def test_a_single_file_is_a_set(here):
    source = open_tfrecord(_written(example(1), example(2)), SHAPE)
    np.testing.assert_array_equal(source.read(np.arange(2)), [drawn(1), drawn(2)])


@pytest.mark.parametrize(
    'identities, names, labels',
    [
        ([(10, None), (9, None), (10, None)], ['9', '10'], [1, 0, 1]),
        ([(None, 'b'), (None, 'ä'), (None, 'a')], ['a', 'b', 'ä'], [1, 2, 0]),
        ([(3, 'b'), (None, 'a'), (3, 'b')], ['a', 'b'], [1, 0, 1]),
    ],
    ids=['labels', 'texts', 'both'],
)
def test_identities_are_texts_or_labels(here, identities, names, labels):
    _written(*[example(label, text=text) for label, text in identities])
    source = open_tfrecord('set', SHAPE)
    assert source.names == names and source.labels.tolist() == labels


@pytest.mark.parametrize(
    'images, line',
    [
        (
            [example(1, text='a'), example(2, text='a')],
            'record 1: expected one text for each label',
        ),
        (
            [example(1, text='a'), example(1, text='b')],
            'record 1: expected one text for each label',
        ),
        ([example(None)], 'record 0: expected image/class/label, a number, or image/class/text'),
        (
            [example(None, **{'image/class/label': 1.5})],
            'record 0: expected image/class/label, a number',
        ),
        ([{'image/class/label': 1}], 'record 0: expected image/encoded, bytes. Rec.*: image/class'),
        ([{'image/encoded': 3, 'image/class/label': 1}], 'record 0: expected image/encoded, bytes'),
        ([{}], 'record 0: expected image/encoded, bytes. Received: none'),
    ],
)
def test_records_of_other_forms_are_named(here, images, line):
    _written(*images)
    with pytest.raises(ValueError, match=f'^set/a.tfrecord: {line}'):
        open_tfrecord('set', SHAPE)


def test_what_is_no_example_is_named(here):
    os.mkdir('set')
    with tf.io.TFRecordWriter('set/a.tfrecord') as writer:
        writer.write(b'\xff\xff')
    with pytest.raises(ValueError, match='^set/a.tfrecord: record 0: expected a tf.train.Example'):
        open_tfrecord('set', SHAPE)


def _frames(content):
    """The lengths of files that end with a whole record."""
    ends = [0]
    while ends[-1] < len(content):
        length = int.from_bytes(content[ends[-1] : ends[-1] + 8], 'little')
        ends.append(ends[-1] + length + 16)
    return ends


def test_a_shard_cut_short_anywhere_is_named(here):
    """But between two records, which no reader without an index notices."""
    path = _written({'image/class/label': 1}, {'image/class/label': 2})
    with open(path, 'rb') as file:
        content = file.read()
    ends = _frames(content)
    assert len(ends) == 3
    for length in range(len(content)):
        with open(path, 'wb') as file:
            file.write(content[:length])
        if length in ends:
            assert len(list(shards.records(path))) == ends.index(length)
        else:
            number = sum(end <= length for end in ends) - 1
            line = f'^set/a.tfrecord: record {number}: expected an undamaged record of TFRecord'
            with pytest.raises(ValueError, match=line):
                list(shards.records(path))


def test_any_damage_of_a_shard_is_noticed(here):
    """Lengths and contents each have a checksum."""
    path = _written({'image/class/label': 1}, {'image/class/label': 2})
    with open(path, 'rb') as file:
        content = file.read()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        with open(path, 'wb') as file:
            file.write(damaged)
        with pytest.raises(ValueError, match='set/a.tfrecord: record [01]: expected an undamaged'):
            list(shards.records(path))


def test_a_shard_that_changes_after_it_was_opened_is_noticed(here):
    path = _written(example(1), example(2), example(3))
    source = open_tfrecord('set', SHAPE)
    with open(path, 'r+b') as file:
        file.seek(-100, os.SEEK_END)
        file.write(b'\0')
    source.read(np.arange(2))
    with pytest.raises(ValueError, match='^set/a.tfrecord: record 2: expected the record that the'):
        source.read(np.arange(3))


def test_more_shards_than_files_are_kept_open(here):
    """100 shards, and 8 threads that read them in turns."""
    for number in range(100):
        _written(example(number), path=f'set/{number:03d}.tfrecord')
    source = open_tfrecord('set', SHAPE)
    with ThreadPool(8) as threads:
        read = threads.map(lambda index: source.read(np.array([index % 100]))[0], range(300))
    np.testing.assert_array_equal(read, [drawn(index % 100) for index in range(300)])
    links = [os.path.join('/proc/self/fd', number) for number in os.listdir('/proc/self/fd')]
    targets = [os.readlink(link) for link in links if os.path.islink(link)]
    assert 0 < sum(target.endswith('.tfrecord') for target in targets) <= 64


def test_a_vanished_shard_is_named(here):
    source = open_tfrecord(_written(example(1), example(2)), SHAPE)
    os.remove('set/a.tfrecord')
    with pytest.raises(OSError, match='set/a.tfrecord'):
        source.read(np.arange(1))


@pytest.mark.parametrize('name, line', [('a.txt', 'files .*tfrecord'), ('a.tfrecord', 'images')])
def test_folders_without_images_are_refused(here, name, line):
    _written(path=f'set/{name}')
    with pytest.raises(ValueError, match=f'^set: expected {line}. Received: none'):
        open_tfrecord('set', SHAPE)


def test_a_pipe_is_no_shard(here):
    os.mkfifo('pipe.tfrecord')
    with pytest.raises(OSError, match='not a regular file'):
        open_tfrecord('pipe.tfrecord', SHAPE)
    with pytest.raises(OSError, match='nowhere'):
        open_tfrecord('nowhere', SHAPE)


def test_the_fingerprint_follows_the_content(here):
    prints = []
    for number, images in enumerate(([1, 2], [1, 3], [1, 2])):
        _written(*map(example, images), path=f'{number}/a.tfrecord')
        prints.append(open_tfrecord(str(number), SHAPE).fingerprint)
    assert prints[0] == prints[2] != prints[1]


def test_an_example_of_ours_is_one_of_tensorflow(here):
    """The same features as written by hand, in any order of the dictionary."""
    ours = shards.example(b'bytes', 3, 'grün')
    features = {'image/class/text': 'grün'.encode(), 'image/encoded': b'bytes'}
    theirs = serialised({'image/class/label': 3, **features})
    assert (
        shards.feature(ours, '')
        == shards.feature(theirs, '')
        == {'image/class/label': 3, **features}
    )
    assert re.search(b'bytes', ours) and len(ours) == len(theirs)


def test_an_index_is_read_back(here):
    index = shards.Index(
        np.array([0, 20, 60], np.int64),
        np.array([4, 2], np.int32),
        np.array([1, 2**32 - 1], np.uint32),
        {'shard': 'abc'},
    )
    (here / 'a.index').write_bytes(index.tobytes())
    found = shards.read_index('a')
    assert found.facts == {'shard': 'abc'}
    for name in ('offsets', 'labels', 'checksums'):
        np.testing.assert_array_equal(getattr(found, name), getattr(index, name))


@pytest.mark.parametrize(
    'edit',
    [
        lambda content: b'',
        lambda content: content[:-1],
        lambda content: content[:-9] + b'\1' + content[-8:],
        lambda content: content.replace(b'"records": 2', b'"records": 3'),
        lambda content: content.replace(b'"records": 2', b'"records": -1'),
        lambda content: b'[' * 100000 + content,
        lambda content: b'[]\n' + content,
    ],
)
def test_a_damaged_index_is_named(here, edit):
    content = shards.Index(np.array([0, 20, 60]), np.array([4, 2]), np.array([1, 2])).tobytes()
    (here / 'a.index').write_bytes(edit(content))
    with pytest.raises(ValueError, match='^a.index: expected an undamaged index of a shard. Rec'):
        shards.read_index('a')
