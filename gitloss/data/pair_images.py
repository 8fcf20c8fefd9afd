"""The images of pairs as a Source: files, or those that a .bin holds."""

from __future__ import annotations

import hashlib
import os
from typing import Iterator

import numpy as np

from gitloss.data.folder import IMAGE_SUFFIXES, FileSource
from gitloss.data.images import ImageSource
from gitloss.data.pairs import Pairs
from gitloss.data.texts import Labels, Texts
from gitloss.errors import check, one_line


class EncodedImages(ImageSource):
    """Encoded images in memory.

    Args:
      path: the file that they come from.
      pairs: has `encoded`.
      image_shape: (height, width, channels) of what `read` returns.
    """

    def __init__(self, path: str, pairs: Pairs, image_shape: tuple[int, ...]) -> None:
        assert pairs.encoded is not None
        super().__init__(path, np.zeros(len(pairs.encoded), np.int32), ('',), image_shape)
        self._path, self._names, self._encoded = path, pairs.names, pairs.encoded

    def where(self, index: int) -> str:
        return f'{self._path}: {self._names[index]}'

    def encoded(self, index: int) -> bytes:
        return self._encoded[index]

    def catalogue(self) -> Iterator[bytes]:
        for content in self._encoded:
            yield hashlib.sha256(content).digest()


def _path(root: str, name: str) -> str:
    """The path of an image relative to `root`: its name, perhaps with an extension; '' if there is
    no file.
    """
    for suffix in ('', *IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)):
        if os.path.isfile(os.path.join(root, name + suffix)):
            return name + suffix
    return ''


def open_images(
    pairs: Pairs, path: str, root: str, image_shape: tuple[int, ...]
) -> ImageSource:
    """The images of pairs, in the order of `pairs.names`.

    Args:
      path: the file of the pairs.
      root: the folder of the images; '': the folder of the file, or of CFP the folder of Protocol.
      image_shape: (height, width, channels) to which images are scaled.

    Raises:
      ValueError: images are missing; the line names the first one.
    """
    if pairs.encoded is not None:
        return EncodedImages(path, pairs, image_shape)
    if not root:
        above = ['..'] * 3 if os.path.isdir(path) else ['..']  # Protocol/Split/FP
        root = os.path.normpath(os.path.join(os.path.abspath(path), *above))
    found = [_path(root, name) for name in pairs.names]
    missing = [name for name, place in zip(pairs.names, found) if not place]
    received = f'{len(missing)} missing, the first is {one_line(str(missing[:1]), 200)}'
    expected = f'the {len(found)} images of {one_line(path, 2000)}'
    check(not missing, one_line(root, 2000), expected, received)
    labels = Labels()
    for name in pairs.people or [''] * len(found):
        labels.append(name)
    return FileSource(path, root, Texts(found), labels, image_shape)
