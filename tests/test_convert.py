"""Conversion to TFRecord shards: the same images again, bytes that depend on the source alone, what
happens after a kill, and the command. What is damaged or in the way: test_convert_damage.py.
"""

import os
import signal

import numpy as np
import pytest

import forking
from gitloss.data import IMAGES, conversion, integrity
from gitloss.data.tfrecord import open_tfrecord
from packed import LINES, NAMES, Ending, broken_source, content_of, small_source
from portraits import SHAPE, drawn, write
from records import example, faces, write_recordio, write_tfrecord
from trainers import convert

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


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
    source = small_source()
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
    conversion.convert(small_source(), 'one', 2, threads=1)
    conversion.convert(small_source(), 'many', 2, threads=threads)
    assert content_of('one') == content_of('many')


@pytest.mark.parametrize('number', [0, 1, 4, 7, 14])
def test_an_interrupted_conversion_keeps_whole_shards(here, number):
    """Shards of 4: the first `number // 4` are whole, and not written again."""
    conversion.convert(small_source(), 'expected', 4)
    with pytest.raises(KeyboardInterrupt):
        conversion.convert(Ending(small_source(), number, KeyboardInterrupt()), 'out', 4, threads=1)
    whole = [name for name in os.listdir('out') if name.endswith('.tfrecord')]
    assert len(whole) == number // 4 and len(os.listdir('out')) == 2 * len(whole)
    before = {name: os.stat(os.path.join('out', name)).st_ino for name in whole}
    if whole:
        with pytest.raises(ValueError, match='^out: expected manifest.json, .* without an end'):
            open_tfrecord('out', SHAPE)
    again = Ending(
        small_source(), 15 - 4 * len(whole), AssertionError('a kept image is read again')
    )
    conversion.convert(again, 'out', 4)
    assert {name: os.stat(os.path.join('out', name)).st_ino for name in whole} == before
    assert content_of('out') == content_of('expected')


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
    conversion.convert(small_source(), 'expected', 2, threads=1)
    for number in (5, 6):
        process = forking.Process(['-c', KILLED, number], cwd=here)
        assert process.wait(60) == -signal.SIGKILL and not os.path.exists('out/manifest.json')
    assert len(os.listdir('out')) > 2
    conversion.convert(small_source(), 'out', 2)
    assert content_of('out') == content_of('expected')


def test_the_command_converts_and_checks(here, capfd):
    small_source()
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
    broken_source()
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
    small_source()
    assert convert.main(arguments) == 2
    (found,) = capfd.readouterr().err.splitlines()
    assert found.startswith(f'trainers.convert: {line}')


def test_an_image_keeps_its_pixels_through_the_command(here):
    small_source()
    convert.main(['--dataset=folder', '--data_path=faces', '--out_path=out'])
    np.testing.assert_array_equal(open_tfrecord('out', SHAPE).read(np.array([6])), [drawn(1, 1)])
