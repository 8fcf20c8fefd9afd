"""Sources of encoded images, decoded on the host by Pillow as they are read.

What decodes one way on one system and another way on the next, or only with a loss, is refused.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import hashlib
import io
from typing import Any, Callable, Iterator, Sequence, Tuple

import numpy as np
from PIL import Image

from gitloss.data.source import Source
from gitloss.data.texts import Texts
from gitloss.errors import check, one_line, reason

Align = Callable[[Any, str, Tuple[int, int]], Any]
FORMATS = ('JPEG', 'PNG', 'PPM', 'BMP')  # PPM stands for PGM and PBM as well
MOST_PIXELS = 64000000  # of an image: 192 MB decoded
_OF_THE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP) + (
    (errno.EISDIR, errno.EINVAL, errno.ENXIO, errno.EFBIG)  # no regular file, or a huge one
)
_MODES = ('1', 'L', 'P', 'RGB', 'LA', 'PA', 'RGBA')  # of 8 bits at most, without CMYK
_TURNS = {  # by the EXIF tag Orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageSource(Source):
    """Encoded images with the names of their identities.

    `read` decodes and scales, in the thread that calls it: `decode` has nothing left to do. A
    subclass defines `encoded`, `where` and `catalogue`.

    Args:
      path: where the images are, for messages.
      labels: int32 [n].
      names: the name of each label.
      image_shape: (height, width, channels) of what `read` returns; 1 or 3 channels.

    Attributes:
      names: label i is that of the identity names[i]. All are different.
      align: cuts the face out of an image, see `decoded`; None: the whole image is taken.

    Raises:
      ValueError: there are no images.
    """

    align: Align | None = None

    def __init__(
        self, path: str, labels: np.ndarray, names: Sequence[str], image_shape: tuple[int, ...]
    ) -> None:
        path = one_line(path, 5000)
        check(len(labels), path, 'images', 'none')
        check(image_shape[2] in (1, 3), 'image_shape', '1 or 3 channels', image_shape)
        self.labels, self.names, self.image_shape = np.asarray(labels, np.int32), names, image_shape

    @abc.abstractmethod
    def encoded(self, index: int) -> bytes:
        """The bytes of an image, as they are stored.

        Raises:
          OSError: they cannot be read, for example because the file is gone.
          ValueError: the file that holds them is damaged.
        """

    @abc.abstractmethod
    def where(self, index: int) -> str:
        """The path of an image, or the path and the number of its record."""

    def name(self, index: int) -> str:
        """The name of an image among embeddings: its path without extension, or the name of its
        identity and its number.
        """
        return f'{self.names[self.labels[index]]}/{index:08}'

    @abc.abstractmethod
    def catalogue(self) -> Iterator[bytes]:
        """What tells these images from others without reading them: names and sizes of files."""

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The pixels of the images `indices`: uint8 [k, height, width, channels].

        Raises:
          ValueError: an image is refused, see `decoded`; the message begins with its `where`.
          OSError: a file cannot be read.
        """
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        for row, index in enumerate(map(int, indices)):
            where = self.where(index)
            images[row] = decoded(self.encoded(index), where, self.image_shape, self.align)
        return images

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes of the files, the labels and the names of identities.

        The pixels are not read: an image that is replaced by one of the same name and size is not
        noticed.
        """
        digest = hashlib.sha256()
        names = Texts(self.names).tobytes()
        for part in (*self.catalogue(), self.labels.tobytes(), names):
            digest.update(hashlib.sha256(part).digest())
        return digest.hexdigest()


def picture(content: bytes, where: str) -> Image.Image:
    """Decodes a JPEG, PNG, PPM, PGM or BMP file, upright by its EXIF orientation.

    Args:
      content: the bytes of the file.
      where: its path, for messages.

    Returns:
      An image of the mode L or RGB.

    Raises:
      ValueError: the file is empty, damaged or truncated, of another format, animated, not of 8
        bits, transparent, neither grey nor RGB, or of more than MOST_PIXELS.
    """
    where = one_line(where, 5000)
    check(content, where, 'an image', 'an empty file')
    with _damage_named(where, content):
        image: Any = Image.open(io.BytesIO(content), formats=FORMATS)
        bits, frames = _bits(image), getattr(image, 'n_frames', 1)
    width, height = image.size
    # Known from the header, before a pixel is decoded.
    check(width * height <= MOST_PIXELS, where, f'at most {MOST_PIXELS} pixels', image.size)
    # A second picture in a JPEG file (MPO) is a thumbnail or a depth map, not an animation.
    check(frames == 1 or image.format != 'PNG', where, 'a still image', f'{frames} frames')
    check(bits == 8, where, 'pixels of 8 bits', f'{bits} bits')
    check(image.mode in _MODES, where, 'grey, RGB or palette pixels', f'the mode {image.mode}')
    with _damage_named(where, content):
        image.load()
        image = _upright(image)
        if 'transparency' in image.info or image.mode in ('LA', 'PA', 'RGBA'):
            image = image.convert('RGBA')
            is_opaque = image.getchannel('A').getextrema()[0] == 255
        else:
            is_opaque = True
    check(is_opaque, where, 'an opaque image', 'one with transparent pixels')
    return _of_mode(image, 'L' if image.mode in ('1', 'L') else 'RGB')


def _of_mode(image: Any, mode: str) -> Any:
    return image if image.mode == mode else image.convert(mode)  # which copies


@contextlib.contextmanager
def _damage_named(where: str, content: bytes) -> Iterator[None]:
    """Pillow raises a dozen types of errors for invalid bytes."""
    try:
        yield
    except MemoryError:  # says nothing about the file
        raise
    except Image.UnidentifiedImageError:
        received = f'bytes that begin with {content[:8].hex()}'
        check(False, where, 'an undamaged JPEG, PNG, PPM, PGM or BMP image', received)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        check(False, where, f'at most {MOST_PIXELS} pixels', reason(error))
    except Exception as error:  # noqa: BLE001
        check(False, where, 'an image that can be decoded', reason(error))


def _bits(image: Any) -> int:
    """Bits of a pixel and channel in the file: Pillow itself reduces RGB to 8."""
    arguments = image.tile[0][3]
    raw, largest, *_ = (arguments, 0) if isinstance(arguments, str) else arguments
    is_deep = raw.endswith(';16B') or (image.format == 'PPM' and largest > 255)
    return 16 if is_deep or image.mode.startswith('I') else 32 if image.mode == 'F' else 8


def _upright(image: Any) -> Any:
    try:
        turn = _TURNS.get(image.getexif().get(0x0112))
    except Exception:  # noqa: BLE001 - EXIF data are damaged more often than pixels
        turn = None
    return image if turn is None else image.transpose(turn)


def decoded(
    content: bytes, where: str, image_shape: tuple[int, ...], align: Align | None = None
) -> np.ndarray:
    """The pixels of an encoded image, uint8 [height, width, channels] of the shape `image_shape`.

    Grey becomes RGB and RGB grey (ITU-R 601-2 luma) as `image_shape` asks. Another size is
    stretched by Pillow's antialiased bilinear filter, in integers: the same on every machine.

    Args:
      align: (image, where, (width, height)) -> the part of it to take, of that size.

    Raises:
      ValueError: as `picture` does, and `align`.
    """
    height, width, channels = image_shape
    image = picture(content, where)
    if align is not None:
        image = align(image, where, (width, height))
    image = _of_mode(image, 'L' if channels == 1 else 'RGB')
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image_shape)


def examined(images: Any, index: int) -> tuple[bytes, str]:
    """(the bytes of an image, '' or what is wrong with it: expected ... Received: ...).

    Args:
      images: an ImageSource, or anything with its `encoded` and `where`.

    Raises:
      OSError: the system fails, not the file: there are too many open files, a disk is defective.
    """
    where = images.where(index)
    try:
        content = images.encoded(index)
        picture(content, where)
        return content, ''
    except OSError as error:
        if error.errno not in _OF_THE_FILE:
            raise
        return b'', f'expected an image. Received: {error.strerror}'
    except ValueError as error:
        text, begin = reason(error), one_line(where, 5000) + ': '
        return b'', text[len(begin) :] if text.startswith(begin) else text
