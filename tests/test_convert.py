"""Conversion to TFRecord shards: the same images again, bytes that depend on the source alone, what
happens after a kill, and what is refused.
"""

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from gitloss import files
from gitloss.data import IMAGES, conversion, integrity
from gitloss.data.folder import open_folder
from gitloss.data.tfrecord import open_tfrecord
from portraits import SHAPE, drawn, write
from records import example, faces, write_recordio, write_tfrecord
from trainers import convert

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = ['anna', 'bob/jr', 'cé']


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    return tmp_path


def _source(folder='faces'):
    """15 images of 3 identities."""
    if not os.path.isdir(folder):
        write(folder, NAMES, 5)
    return open_folder(folder, SHAPE)


def _content(folder):
    """{name: bytes} of the files."""
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), 'rb') as file:
            found[name] = file.read()
    return found


def _of_kind(kind):
    """A path with images of this kind."""
    if kind == 'recordio':
        return write_recordio('set', faces([10, 9, 10, 2]))
    if kind == 'tfrecord':
        images = [example(label, text=text) for label, text in ((7, 'ä'), (3, 'z'), (7, 'ä'))]
        return os.path.dirname(write_tfrecord('set/a.tfrecord', images))
    write('set', NAMES, 3)
    if kind == 'folder':
        return 'set'
    with open('set/list', 'w') as file:
        file.write('bob/jr/0.png 10\nanna/2.png 9\nanna/1.png 10\n')
    return 'set/list'


@pytest.mark.parametrize('kind', sorted(IMAGES))
def test_shards_have_the_images_of_any_source(here, kind):
    """Names and labels too; the files inside are the same to the last byte."""
    source = IMAGES[kind].open(_of_kind(kind), SHAPE)
    manifest = conversion.convert(source, 'out', shard_images=2)
    found = open_tfrecord('out', SHAPE)
    assert manifest['images'] == len(found) == len(source)
    assert list(found.names) == list(source.names) == manifest['identities']
    np.testing.assert_array_equal(found.labels, source.labels)
    indices = range(len(source))
    assert [found.encoded(i) for i in indices] == [source.encoded(i) for i in indices]
    np.testing.assert_array_equal(
        found.read(np.arange(len(source))), source.read(np.array(indices))
    )
    assert integrity.damaged_shards('out') == []


def test_tensorflow_reads_the_shards_without_an_index(here):
    """As those of others: 4 shards of 4, 4, 4 and 3 images."""
    source = _source()
    conversion.convert(source, 'out', shard_images=4)
    for name in os.listdir('out'):
        if not name.endswith('.tfrecord'):
            os.remove(os.path.join('out', name))
    assert sorted(os.listdir('out')) == [f'images-{n:05d}-of-00004.tfrecord' for n in range(4)]
    found = open_tfrecord('out', SHAPE)
    assert found.names == source.names and found.labels.tolist() == source.labels.tolist()
    np.testing.assert_array_equal(found.read(np.arange(15)), source.read(np.arange(15)))


@pytest.mark.parametrize('threads', [2, 7])
def test_the_bytes_do_not_depend_on_the_threads(here, threads):
    conversion.convert(_source(), 'one', 2, threads=1)
    conversion.convert(_source(), 'many', 2, threads=threads)
    assert _content('one') == _content('many')


class _Ending:
    """A source that raises an error at its n-th image."""

    def __init__(self, source, number, error):
        self._source, self._left, self._error = source, number, error

    def __getattr__(self, name):
        return getattr(self._source, name)

    def __len__(self):
        return len(self._source)

    def encoded(self, index):
        self._left -= 1
        if self._left < 0:
            raise self._error
        return self._source.encoded(index)


@pytest.mark.parametrize('number', [0, 1, 4, 7, 14])
def test_an_interrupted_conversion_keeps_whole_shards(here, number):
    """Shards of 4: the first `number // 4` are whole, and not written again."""
    conversion.convert(_source(), 'expected', 4)
    with pytest.raises(KeyboardInterrupt):
        conversion.convert(_Ending(_source(), number, KeyboardInterrupt()), 'out', 4, threads=1)
    whole = [name for name in os.listdir('out') if name.endswith('.tfrecord')]
    assert len(whole) == number // 4 and len(os.listdir('out')) == 2 * len(whole)
    before = {name: os.stat(os.path.join('out', name)).st_ino for name in whole}
    if whole:
        with pytest.raises(ValueError, match='^out: expected manifest.json, .* without an end'):
            open_tfrecord('out', SHAPE)
    again = _Ending(_source(), 15 - 4 * len(whole), AssertionError('a kept image is read again'))
    conversion.convert(again, 'out', 4)
    assert {name: os.stat(os.path.join('out', name)).st_ino for name in whole} == before
    assert _content('out') == _content('expected')


KILLED = """
import os, signal, sys
from gitloss.data import conversion
from gitloss.data.folder import open_folder
source, left = open_folder('faces', (8, 8, 3)), int(sys.argv[1])
read = source.encoded
def encoded(index):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(index)
source.encoded = encoded
conversion.convert(source, 'out', 2, threads=2)
"""


def test_a_killed_conversion_ends_with_the_same_bytes(here):
    """Killed twice, with two threads in the middle of shards of 2 images, then completed."""
    conversion.convert(_source(), 'expected', 2, threads=1)
    environment = dict(os.environ, PYTHONPATH=ROOT)
    for number in (5, 6):
        status = subprocess.call([sys.executable, '-c', KILLED, str(number)], env=environment)
        assert status == -signal.SIGKILL and not os.path.exists('out/manifest.json')
    assert len(os.listdir('out')) > 2
    conversion.convert(_source(), 'out', 2)
    assert _content('out') == _content('expected')


def _damage(path, place=-5):
    with open(path, 'r+b') as file:
        file.seek(place, os.SEEK_END)
        byte = file.read(1)
        file.seek(place, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


SHARD = 'out/images-00001-of-00004.tfrecord'


@pytest.mark.parametrize('edit', [_damage, lambda path: os.truncate(path, 100), os.remove])
def test_damaged_shards_are_named_and_written_again(here, edit, capfd):
    conversion.convert(_source(), 'out', 4)
    expected = _content('out')
    edit(SHARD)
    (line,) = integrity.damaged_shards('out')
    assert SHARD in line and '\n' not in line
    arguments = ['--dataset=tfrecord', '--data_path=out', '--threads=1']
    assert convert.main(arguments) == 2
    assert capfd.readouterr().err.splitlines() == [
        f'trainers.convert: {line} (the first of 1 damaged shards)'
    ]
    conversion.convert(_source(), 'out', 4)
    assert _content('out') == expected
    assert convert.main(arguments) == 0


def test_the_index_of_another_shard_is_noticed(here):
    """Both have 4 images; that of the same length is told by its checksum."""
    conversion.convert(_source(), 'out', 4)
    shutil.copy(SHARD.replace('1-of', '0-of') + '.index', SHARD + '.index')
    with pytest.raises(ValueError, match=f'^{SHARD}.index: expected the index of images-00001-of'):
        open_tfrecord('out', SHAPE)
    assert SHARD in integrity.damaged_shards('out')[0]


def test_a_shard_cut_short_is_noticed_when_it_is_opened(here):
    conversion.convert(_source(), 'out', 4)
    size = os.stat(SHARD).st_size
    os.truncate(SHARD, size - 1)
    line = f'^{SHARD}: expected {size} bytes as in manifest.json. Received: {size - 1}$'
    with pytest.raises(ValueError, match=line):
        open_tfrecord('out', SHAPE)


def test_damage_of_an_image_is_noticed_when_it_is_read(here):
    conversion.convert(_source(), 'out', 4)
    _damage(SHARD, -30)
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
    manifest = conversion.convert(_source(), 'out', 4)
    edit(manifest)
    with open('out/manifest.json', 'w') as file:
        json.dump(manifest, file)
    with pytest.raises(ValueError, match='^out/manifest.json: expected the manifest of a conver'):
        open_tfrecord('out', SHAPE)


def _break():
    """Three broken images of 15: empty, cut short, a link to nothing."""
    source = _source()
    open('faces/anna/1.png', 'wb').close()
    os.truncate('faces/bob/jr/0.png', 60)
    os.remove('faces/cé/4.png')
    os.symlink('nowhere', 'faces/cé/4.png')
    return source


LINES = [
    'faces/anna/1.png\texpected an image. Received: an empty file\n',
    'faces/bob/jr/0.png\texpected an image that can be decoded. Received: image file is truncated'
    '\n',
    'faces/cé/4.png\texpected an image. Received: No such file or directory\n',
]


def test_broken_images_are_named_and_left_out_on_demand(here):
    source = _break()
    first = LINES[0].strip().replace('\t', ': ')
    line = f'^{first} .the first of 3 broken images, more than --max_broken=2.$'
    with pytest.raises(ValueError, match=line):
        conversion.convert(source, 'out', 4, max_broken=2)
    assert not os.path.exists('out/manifest.json')
    assert _content('out')['broken.txt'].decode() == ''.join(LINES)
    whole = [index for index in range(15) if index not in (1, 5, 14)]
    conversion.convert(_Ending(source, 0, AssertionError('read again')), 'out', 4, max_broken=3)
    found = open_tfrecord('out', SHAPE)
    np.testing.assert_array_equal(found.labels, source.labels[whole])
    np.testing.assert_array_equal(found.read(np.arange(12)), source.read(np.array(whole)))


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
        (lambda: conversion.convert(_source(), 'out', 5), '--out_path: expected an empty folder'),
        (_file('a.png'), '--out_path: expected an empty folder.*out with .a.png.'),
        (_file('broken.txt'), '--out_path: expected an empty folder'),
        (_file('images-00000-of-00004.tfrecord'), '--out_path: expected an empty folder'),
        (_file('manifest.json'), 'out/manifest.json: expected the manifest of a conversion'),
    ],
    ids=['other images', 'other size', 'image', 'list', 'shard', 'manifest'],
)
def test_a_folder_with_anything_else_in_it_is_not_touched(here, occupy, line):
    occupy()
    before = _content('out')
    with pytest.raises(ValueError, match='^' + line):
        conversion.convert(_source(), 'out', 4)
    assert _content('out') == before


def test_two_conversions_do_not_write_to_one_folder(here):
    os.mkdir('out')
    other = files.Folder('out')
    assert other.lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(ValueError, match='^--out_path: expected a folder to which no other conver'):
        conversion.convert(_source(), 'out', 4)
    other.close()
    conversion.convert(_source(), 'out', 4)


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(here):
    """A limit of 1,000 bytes for files stands for it: the shards have 1,400 and more."""
    source = _source()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match='out/images-0000.-of-00004.tfrecord'):
            conversion.convert(source, 'out', 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir('out') == []


def test_the_command_converts_and_checks(here, capfd):
    _source()
    arguments = ['--dataset=folder', '--data_path=faces', '--shard_images=8']
    assert convert.main(arguments + ['--out_path=out']) == 0
    written = capfd.readouterr()
    assert written.out == f'{here}/out: 15 images of 3 identities\n'
    assert written.err.splitlines() == [
        f'images-0000{number}-of-00002.tfrecord: {count} images'
        for number, count in enumerate((8, 7))
    ]
    assert convert.main(['--dataset=tfrecord', '--data_path=out']) == 0
    assert capfd.readouterr().out == 'out: all shards are as out/manifest.json says\n'
    assert convert.main(['--dataset=folder', '--data_path=faces']) == 0
    assert capfd.readouterr().out == 'faces: 15 images of 3 identities\n'


def test_the_command_names_broken_images(here, capfd):
    _break()
    first, *others = [line.strip().replace('\t', ': ') for line in LINES]
    for more in ([], ['--out_path=out']):
        arguments = ['--dataset=folder', '--data_path=faces', *more]
        assert convert.main(arguments) == 2
        lines = [line for line in capfd.readouterr().err.splitlines() if 'expected' in line]
        last = '(the first of 3 broken images, more than --max_broken=0)'
        assert lines == [*others, f'trainers.convert: {first} {last}']
        assert convert.main(arguments + ['--max_broken=3']) == 0
        assert capfd.readouterr().out.endswith(
            ' 12 images of 3 identities, 3 broken ones left out\n'
        )


@pytest.mark.parametrize(
    'arguments, line',
    [
        (
            ['--dataset=mnist', '--data_path=x'],
            '--dataset: expected one of folder, list, recordio,',
        ),
        (
            ['--data_path=x'],
            '--dataset: expected one of folder, list, recordio, tfrecord. Received:',
        ),
        (
            ['--dataset=folder'],
            '--data_path: expected the images of --dataset=folder. Received: none',
        ),
        (['--dataset=folder', '--data_path=nowhere'], '--data_path: expected a folder of images'),
        (['--dataset=folder', '--steps=5'], '--steps: expected a flag of trainers.convert'),
        (['--dataset=folder', '--shard_images=0'], '--shard_images: expected'),
        (['--dataset=folder', '--data_path=faces', '--out_path=faces/anna/0.png'], '[Errno 17]'),
    ],
)
def test_mistakes_end_in_one_line(here, arguments, line, capfd):
    _source()
    assert convert.main(arguments) == 2
    (found,) = capfd.readouterr().err.splitlines()
    assert found.startswith(f'trainers.convert: {line}')


def test_an_image_keeps_its_pixels_through_the_command(here):
    _source()
    convert.main(['--dataset=folder', '--data_path=faces', '--out_path=out'])
    np.testing.assert_array_equal(open_tfrecord('out', SHAPE).read(np.array([6])), [drawn(1, 1)])
