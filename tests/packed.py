"""A small folder of images for conversions, and what goes wrong with it."""

import os

from gitloss.data.folder import open_folder
from portraits import SHAPE, write

NAMES = ['anna', 'bob/jr', 'cé']
SHARD = 'out/images-00001-of-00004.tfrecord'  # the second of 4 images each
# What is wrong with the images of broken_source.
LINES = [
    'faces/anna/1.png\texpected an image. Received: an empty file\n',
    'faces/bob/jr/0.png\texpected an image that can be decoded. Received: image file is truncated'
    '\n',
    'faces/cé/4.png\texpected an image. Received: No such file or directory\n',
]


def small_source(folder='faces'):
    """15 images of 3 identities."""
    if not os.path.isdir(folder):
        write(folder, NAMES, 5)
    return open_folder(folder, SHAPE)


def content_of(folder):
    """{name: bytes} of the files."""
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), 'rb') as file:
            found[name] = file.read()
    return found


class Ending:
    """A source that raises an error when more than `number` images are read."""

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


def damage(path, place=-5):
    """Changes one bit of a file, `place` bytes from its end."""
    with open(path, 'r+b') as file:
        file.seek(place, os.SEEK_END)
        byte = file.read(1)
        file.seek(place, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


def broken_source():
    """Three broken images of 15: empty, cut short, a link to nothing."""
    source = small_source()
    open('faces/anna/1.png', 'wb').close()
    os.truncate('faces/bob/jr/0.png', 60)
    os.remove('faces/cé/4.png')
    os.symlink('nowhere', 'faces/cé/4.png')
    return source
