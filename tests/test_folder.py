"""Folders of images: which files, which identities, what is refused."""

import logging
import os
import tracemalloc

import numpy as np
import pytest

from gitloss.data.folder import open_folder
from gitloss.data.texts import Labels, Texts
from portraits import SHAPE, drawn, identities, write


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
    assert identities(source) == {f'faces/{name}/0.png': name for name in source.names}


def test_what_is_no_image_or_hidden_is_left_out(here):
    write('faces', ['a', 'b', '.c', 'd.jpg'], 1)
    for name in ('a/.x.png', 'a/notes.txt', 'b/Thumbs.db', 'a/0.PGM'):
        (here / 'faces' / name).write_bytes(b'P5 1 1 255\n1')
    (here / 'faces' / 'empty').mkdir()
    source = open_folder('faces', SHAPE)
    assert identities(source) == {
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
    assert identities(source) == {
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
