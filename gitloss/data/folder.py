"""A folder of images for each identity, nested or not; the first source of images in files."""

from __future__ import annotations

import os
from typing import Iterator

import numpy as np

from gitloss import files
from gitloss.data.images import ImageSource
from gitloss.data.texts import Labels, Texts
from gitloss.errors import check, log, one_line

# Files of the second line are refused by their names when they are read, rather than left out
# without a word.
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.png', '.ppm', '.pgm', '.pbm', '.pnm', '.bmp') + (
    ('.gif', '.webp', '.tif', '.tiff', '.heic', '.avif', '.jp2')
)


class FileSource(ImageSource):
    """A file for each image.

    Args:
      root: the folder to which `paths` are relative.
      paths: of the n files.
      labels: the n identities.
      image_shape: (height, width, channels) of what `read` returns.

    Raises:
      ValueError: there are no images.
    """

    def __init__(
        self, path: str, root: str, paths: Texts, labels: Labels, image_shape: tuple[int, ...]
    ) -> None:
        super().__init__(path, *labels.sorted(), image_shape)
        self._root, self._paths = root, paths

    def where(self, index: int) -> str:
        return os.path.join(self._root, self._paths[index])

    def encoded(self, index: int) -> bytes:
        return files.read(self.where(index))

    def name(self, index: int) -> str:
        return os.path.splitext(self._paths[index])[0]

    def catalogue(self) -> Iterator[bytes]:
        yield self._paths.tobytes()
        sizes = map(_size, map(self.where, range(len(self))))
        yield np.fromiter(sizes, np.int64, len(self)).tobytes()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # a broken image, as its reader will find
        return -1


def _folders(root: str) -> Iterator[tuple[str, list[str]]]:
    """(path of a folder below `root`, the names of its images), in the order of their names.

    Hidden files and folders are left out, and links to a folder in which they are themselves.
    """
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [('', ())]
    while waiting:
        folder, above = waiting.pop()
        place = os.path.join(root, folder)
        status = os.stat(place)
        here = (status.st_dev, status.st_ino)
        if here in above:
            continue
        with os.scandir(place) as entries:
            found = sorted((e.name, _is_folder(e)) for e in entries if not e.name.startswith('.'))
        names = [name for name, is_folder in found if not is_folder]
        yield folder, [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
        inner = [os.path.join(folder, name) for name, is_folder in reversed(found) if is_folder]
        waiting += [(name, (*above, here)) for name in inner]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # entry.is_dir needs no system call, but raises an error for a link to itself.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def open_folder(path: str, image_shape: tuple[int, ...]) -> FileSource:
    """Images below `path`, each of the identity that its folder names.

    The name of an identity is the path of its folder relative to `path`: `alice`, `2019/alice`.
    Links are followed.

    Args:
      path: the folder of the folders.
      image_shape: (height, width, channels) to which images are scaled.

    Raises:
      ValueError: no folder, or no images in folders.
      OSError: a folder cannot be read.
    """
    shown = one_line(path, 5000)
    check(os.path.isdir(path), '--data_path', 'a folder of images for each identity', shown)
    paths, labels, outside = Texts(), Labels(), []
    for folder, names in _folders(path):
        for name in names:
            if folder:
                paths.append(os.path.join(folder, name))
                labels.append(folder)
            else:
                outside.append(one_line(name))
    if outside:
        received = f'{len(outside)} images outside of folders, the first is {outside[0]}'
        check(len(paths), shown, 'a folder of images for each identity', received)
        log.warning('%s: %s: they are of no identity and not read', shown, received)
    return FileSource(path, path, paths, labels, image_shape)
