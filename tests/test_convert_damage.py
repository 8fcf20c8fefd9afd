"""Conversions, where something is damaged, broken, full or in the way."""

import fcntl
import json
import os
import resource
import shutil

import numpy as np
import pytest

from gitloss import files
from gitloss.data import conversion, integrity
from gitloss.data.folder import open_folder
from gitloss.data.tfrecord import open_tfrecord
from packed import LINES, SHARD, Ending, broken_source, content_of, damage, small_source
from portraits import SHAPE, write
from trainers import convert


@pytest.mark.parametrize('edit', [damage, lambda path: os.truncate(path, 100), os.remove])
def test_damaged_shards_are_named_and_written_again(here, edit, capfd):
    conversion.convert(small_source(), 'out', 4)
    expected = content_of('out')
    edit(SHARD)
    (line,) = integrity.damaged_shards('out')
    assert SHARD in line and '\n' not in line
    arguments = ['--dataset=tfrecord', '--data_path=out', '--threads=1']
    assert convert.main(arguments) == 2
    assert capfd.readouterr().err.splitlines() == [
        f'trainers.convert: {line} (the first of 1 damaged shards)'
    ]
    conversion.convert(small_source(), 'out', 4)
    assert content_of('out') == expected
    assert convert.main(arguments) == 0


def test_the_index_of_another_shard_is_noticed(here):
    """Both have 4 images; that of the same length is told by its checksum."""
    conversion.convert(small_source(), 'out', 4)
    shutil.copy(SHARD.replace('1-of', '0-of') + '.index', SHARD + '.index')
    with pytest.raises(ValueError, match=f'^{SHARD}.index: expected the index of images-00001-of'):
        open_tfrecord('out', SHAPE)
    assert SHARD in integrity.damaged_shards('out')[0]


def test_a_shard_cut_short_is_noticed_when_it_is_opened(here):
    conversion.convert(small_source(), 'out', 4)
    size = os.stat(SHARD).st_size
    os.truncate(SHARD, size - 1)
    line = f'^{SHARD}: expected {size} bytes as in manifest.json. Received: {size - 1}$'
    with pytest.raises(ValueError, match=line):
        open_tfrecord('out', SHAPE)


def test_damage_of_an_image_is_noticed_when_it_is_read(here):
    conversion.convert(small_source(), 'out', 4)
    damage(SHARD, -30)
    source = open_tfrecord('out', SHAPE)
    source.read(np.arange(7))
    with pytest.raises(ValueError, match=f'^{SHARD}: record 3: expected the record that the index'):
        source.read(np.array([7]))


@pytest.mark.parametrize(
    'edit',
    [
        lambda manifest: manifest.clear(),
        lambda manifest: manifest.update(identities=['a', 'a', 'b']),
        lambda manifest: manifest.update(identities=None),
        lambda manifest: manifest['shards'][0].update(file='../a'),
        lambda manifest: manifest['shards'][0].update(bytes='1'),
        lambda manifest: manifest['shards'][0].pop('sha256'),
    ],
)
def test_a_damaged_manifest_is_named(here, edit):
    manifest = conversion.convert(small_source(), 'out', 4)
    edit(manifest)
    with open('out/manifest.json', 'w') as file:
        json.dump(manifest, file)
    with pytest.raises(ValueError, match='^out/manifest.json: expected the manifest of a conver'):
        open_tfrecord('out', SHAPE)


def test_broken_images_are_named_and_left_out_on_demand(here):
    source = broken_source()
    first = LINES[0].strip().replace('\t', ': ')
    line = f'^{first} .the first of 3 broken images, more than --max_broken=2.$'
    with pytest.raises(ValueError, match=line):
        conversion.convert(source, 'out', 4, max_broken=2)
    assert not os.path.exists('out/manifest.json')
    assert content_of('out')['broken.txt'].decode() == ''.join(LINES)
    whole = [index for index in range(15) if index not in (1, 5, 14)]
    conversion.convert(Ending(source, 0, AssertionError('read again')), 'out', 4, max_broken=3)
    found = open_tfrecord('out', SHAPE)
    np.testing.assert_array_equal(found.labels, source.labels[whole])
    np.testing.assert_array_equal(found.read(np.arange(12)), source.read(np.array(whole)))


def _another_size():
    conversion.convert(small_source(), 'out', 5)


def _other_conversion():
    write('others', ['x', 'y'], 3)
    conversion.convert(open_folder('others', SHAPE), 'out', 4)


def _file(name):
    def written():
        os.mkdir('out')
        with open(f'out/{name}', 'w') as file:
            file.write('{}')

    return written


@pytest.mark.parametrize(
    'occupy, line',
    [
        (_other_conversion, '--out_path: expected an empty folder, or one of the same conversion'),
        (
            lambda: conversion.convert(small_source(), 'out', 5),
            '--out_path: expected an empty folder',
        ),
        (_file('a.png'), '--out_path: expected an empty folder.*out with .a.png.'),
        (_file('broken.txt'), '--out_path: expected an empty folder'),
        (_file('images-00000-of-00004.tfrecord'), '--out_path: expected an empty folder'),
        (_file('manifest.json'), 'out/manifest.json: expected the manifest of a conversion'),
    ],
    ids=['other images', 'other size', 'image', 'list', 'shard', 'manifest'],
)
def test_a_folder_with_anything_else_in_it_is_not_touched(here, occupy, line):
    occupy()
    before = content_of('out')
    with pytest.raises(ValueError, match='^' + line):
        conversion.convert(small_source(), 'out', 4)
    assert content_of('out') == before


def test_two_conversions_do_not_write_to_one_folder(here):
    os.mkdir('out')
    other = files.Folder('out')
    assert other.lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(ValueError, match='^--out_path: expected a folder to which no other conver'):
        conversion.convert(small_source(), 'out', 4)
    other.close()
    conversion.convert(small_source(), 'out', 4)


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(here):
    """A limit of 1,000 bytes for files stands for it: the shards have 1,400 and more."""
    source = small_source()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match='out/images-0000.-of-00004.tfrecord'):
            conversion.convert(source, 'out', 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir('out') == []
