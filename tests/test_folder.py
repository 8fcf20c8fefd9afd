"""Folders and lists of images: which files, which identities, what is refused."""

import logging
import os
import tracemalloc

import numpy as np
import pytest

from gitloss.data.folder import open_folder
from gitloss.data.listing import line, open_list
from gitloss.data.texts import Labels, Texts
from portraits import SHAPE, drawn, write


def _content(source):
    """{path relative to the current folder: name of the identity}."""
    names = [source.names[label] for label in source.labels]
    return dict(zip((source.where(index) for index in range(len(source))), names))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    return tmp_path


def test_an_identity_is_a_folder(here):
    source = open_folder(write('faces', ['bob', 'älice'], 2), SHAPE)
    assert source.names == ['bob', 'älice'] and source.image_shape == SHAPE
    assert source.labels.tolist() == [0, 0, 1, 1] and source.labels.dtype == np.int32
    expected = [drawn(identity, number) for identity in range(2) for number in range(2)]
    np.testing.assert_array_equal(source.images(np.arange(4)), expected)
    np.testing.assert_array_equal(
        source.read(np.array([2, 0, 2])), [expected[i] for i in (2, 0, 2)]
    )
    assert source.where(3) == 'faces/älice/1.png'


def test_identities_may_be_nested_and_are_no_numbers(here):
    """Names are paths below the root, in the order of their texts."""
    write('faces', ['7', '07', 'a/b', 'a', 'a-b'], 1)
    source = open_folder('faces', SHAPE)
    assert source.names == ['07', '7', 'a', 'a-b', 'a/b']
    assert _content(source) == {f'faces/{name}/0.png': name for name in source.names}


def test_what_is_no_image_or_hidden_is_left_out(here):
    write('faces', ['a', 'b', '.c', 'd.jpg'], 1)
    for name in ('a/.x.png', 'a/notes.txt', 'b/Thumbs.db', 'a/0.PGM'):
        (here / 'faces' / name).write_bytes(b'P5 1 1 255\n1')
    (here / 'faces' / 'empty').mkdir()
    source = open_folder('faces', SHAPE)
    assert _content(source) == {
        'faces/a/0.PGM': 'a',
        'faces/a/0.png': 'a',
        'faces/b/0.png': 'b',
        'faces/d.jpg/0.png': 'd.jpg',
    }


def test_links_are_followed_but_not_in_circles(here):
    write('faces', ['a', 'b'], 1)
    write('elsewhere', ['c'], 1)
    os.symlink('../../elsewhere/c/0.png', 'faces/a/linked.png')
    os.symlink('../elsewhere/c', 'faces/c')
    os.symlink('..', 'faces/b/loop')
    os.symlink('.', 'faces/a/self')
    os.symlink('itself.png', 'faces/a/itself.png')  # no folder: a file that cannot be read
    source = open_folder('faces', SHAPE)
    assert _content(source) == {
        'faces/a/0.png': 'a',
        'faces/a/itself.png': 'a',
        'faces/a/linked.png': 'a',
        'faces/b/0.png': 'b',
        'faces/c/0.png': 'c',
    }
    with pytest.raises(OSError, match='faces/a/itself.png'):
        source.read(np.array([1]))


def test_files_of_formats_that_are_not_read_are_named_when_they_are(here):
    write('faces', ['a', 'b'], 1, 'webp')
    (here / 'faces' / 'a' / '0.webp').write_bytes(b'RIFF0000WEBP')
    source = open_folder('faces', SHAPE)
    assert len(source) == 2
    with pytest.raises(
        ValueError, match='^faces/a/0.webp: expected an undamaged JPEG, PNG, PPM, PGM or BMP'
    ):
        source.read(np.arange(1))


@pytest.mark.parametrize(
    'folders, line',
    [
        ([], '^faces: expected images. Received: none'),
        (
            ['.'],
            '^faces: expected a folder of images for each identity. Received: 3 images outside',
        ),
    ],
)
def test_folders_without_identities_are_refused(here, folders, line):
    (here / 'faces').mkdir()
    write('faces', folders)
    with pytest.raises(ValueError, match=line):
        open_folder('faces', SHAPE)


def test_a_missing_folder_is_refused(here):
    with pytest.raises(ValueError, match='^--data_path: expected a folder of images for each'):
        open_folder('faces', SHAPE)


def test_images_beside_the_folders_are_mentioned(here, caplog):
    write('faces', ['a', 'b', '.'], 1)
    with caplog.at_level(logging.WARNING, 'gitloss'):
        assert open_folder('faces', SHAPE).names == ['a', 'b']
    assert '1 images outside of folders, the first is 0.png' in caplog.text


def test_a_file_that_vanishes_is_named(here):
    source = open_folder(write('faces', ['a', 'b'], 2), SHAPE)
    os.remove('faces/b/1.png')
    source.read(np.arange(3))
    with pytest.raises(OSError, match='faces/b/1.png'):
        source.read(np.arange(4))


def test_the_fingerprint_follows_names_sizes_and_labels(here):
    """Not the place of the folder."""
    first = open_folder(write('faces', ['a', 'b'], 2), SHAPE).fingerprint
    os.rename('faces', 'moved')
    assert open_folder('moved', SHAPE).fingerprint == first
    seen = {first}
    for change in (
        lambda: os.rename('moved/a/0.png', 'moved/a/00.png'),
        lambda: os.rename('moved/a', 'moved/c'),
        lambda: (here / 'moved' / 'b' / '0.png').write_bytes(b'longer or shorter'),
        lambda: os.remove('moved/b/1.png'),
    ):
        change()
        seen.add(open_folder('moved', SHAPE).fingerprint)
    source = open_folder('moved', SHAPE)
    os.remove('moved/b/0.png')
    assert len(seen | {source.fingerprint}) == 6


def test_file_names_of_any_bytes_are_read(here):
    """Linux file names are bytes; one that is no UTF-8 is read, and shown without them."""
    write('faces', ['a', 'b'], 1)
    os.rename(b'faces/a/0.png', b'faces/a/\xff\n.png')
    source = open_folder('faces', SHAPE)
    np.testing.assert_array_equal(source.read(np.arange(1)), [drawn(0)])
    with open(source.where(0), 'wb'):
        pass
    with pytest.raises(ValueError, match='^faces/a/  .png: expected an image'):
        source.read(np.arange(1))


def test_an_index_of_100000_files_takes_less_than_20_megabytes():
    """22 bytes of text and 8 + 4 for offset and label are 3.4 MB; a list of texts takes 7 more."""
    tracemalloc.start()
    paths, labels = Texts(), Labels()
    for number in range(100000):
        paths.append(f'n{number // 50:07d}/{number:08d}.jpg')
        labels.append(f'n{number // 50:07d}')
    kept = (paths, labels.sorted()[0])
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept[0]) == 100000 and size < 6e6


LISTS = {
    'tabs': 'a/0.png\tanna\na/1.png\tanna\nb/0.png\tbob\n',
    'spaces': 'a/0.png anna\r\n  a/1.png   anna \n\n# b/1.png bob\nb/0.png bob',
    'quotes': '\ufeff"a/0.png" anna\n"a/1.png" anna\n"b/0.png" "bob"\n',
}


@pytest.mark.parametrize('kind', sorted(LISTS))
def test_a_list_names_paths_and_labels(here, kind):
    write('faces', ['a', 'b'], 2)
    (here / 'faces' / 'train.list').write_text(LISTS[kind], encoding='utf-8')
    source = open_list('faces/train.list', SHAPE)
    assert source.names == ['anna', 'bob'] and source.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(source.read(np.arange(3)), [drawn(0), drawn(0, 1), drawn(1)])
    assert source.where(2) == 'faces/b/0.png'


def test_paths_of_a_list_may_be_absolute_and_numbers_are_sorted_by_value(here):
    write('faces', ['a'], 3)
    lines = [f'{here}/faces/a/{number}.png {label}\n' for number, label in enumerate((10, 9, 10))]
    (here / 'list').write_text(''.join(lines))
    source = open_list('list', SHAPE)
    assert source.names == ['9', '10'] and source.labels.tolist() == [1, 0, 1]
    assert source.read(np.arange(3)).shape == (3, *SHAPE)


NAMES = [
    'plain',
    'with space',
    'tab\there',
    '# hash',
    '"quoted"',
    " led 'and' trailed ",
    'ü\r',
    '\udcff',
]


def test_a_line_is_read_back_whatever_the_names(here):
    pairs = [(name + '.png', name) for name in NAMES] + [(name, name) for name in NAMES]
    text = ''.join(line(*pair) for pair in pairs)
    (here / 'list').write_bytes(text.encode('utf-8', 'surrogateescape'))
    source = open_list('list', SHAPE)
    assert list(_content(source).items()) == pairs
    for pair in (('a\nb', 'c'), ('', 'c'), ('a', ''), ('a\0', 'c')):
        with pytest.raises(ValueError, match='^list: expected a path and a label of one line'):
            line(*pair)


@pytest.mark.parametrize(
    'text, number',
    [
        ('a.png x\nb.png\n', 2),
        ('# paths\na.png x y\n', 2),
        ('a.png\tx\nb.png\t\n', 2),
        ('"a.png x\n', 1),
        ('"a"b x\n', 1),
        ('a.png\0 x\n', 1),
        ('a.png\tx\tb\n', 1),
    ],
)
def test_lines_of_another_form_are_named(here, text, number):
    (here / 'list').write_text(text)
    with pytest.raises(ValueError, match=f'^list, line {number}: expected a path and a label'):
        open_list('list', SHAPE)


def test_a_list_of_nothing_is_refused_one_of_one_identity_is_not(here):
    """A split may have a single identity."""
    (here / 'list').write_text('# nothing\n\n')
    with pytest.raises(ValueError, match='^list: expected images. Received: none'):
        open_list('list', SHAPE)
    (here / 'list').write_text('a x\nb x\n')
    assert open_list('list', SHAPE).names == ['x']


def test_a_list_that_is_a_folder_is_an_error(here):
    with pytest.raises(OSError, match='not a regular file'):
        open_list('.', SHAPE)
