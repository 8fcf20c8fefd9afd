"""What is decoded, to which pixels, and what is refused, with which words."""

import errno
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from gitloss.data import images, texts
from portraits import SHAPE, drawn, encoded, palette, png

FACE = drawn(3)
GREY = drawn(3, shape=(12, 10, 1))


def _decoded(content, shape=SHAPE):
    return images.decoded(content, 'a.png', shape)


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'PPM'])
def test_formats_without_loss_give_the_pixels_themselves(kind):
    np.testing.assert_array_equal(_decoded(encoded(FACE, kind)), FACE)
    np.testing.assert_array_equal(_decoded(encoded(GREY, kind), GREY.shape), GREY)


def test_jpeg_is_decoded_as_pillow_does():
    content = encoded(FACE, 'JPEG', quality=90)
    np.testing.assert_array_equal(_decoded(content), np.asarray(Image.open(io.BytesIO(content))))
    assert np.abs(_decoded(content).astype(int) - FACE).mean() < 15


def test_grey_is_repeated_and_rgb_weighted():
    """0.299 R + 0.587 G + 0.114 B, rounded: (10, 20, 30) is 18.15."""
    np.testing.assert_array_equal(_decoded(encoded(GREY)), np.repeat(GREY, 3, axis=2))
    flat = np.full((4, 4, 3), (10, 20, 30), np.uint8)
    assert set(_decoded(encoded(flat), (4, 4, 1)).ravel()) == {18}


def test_another_size_is_stretched_with_antialiasing():
    """Columns 0 and 255 in turns, a quarter as wide: the mean, where a filter without antialiasing
    would take single columns. Rows are repeated.
    """
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = _decoded(encoded(stripes), (16, 16, 3))
    assert small.shape == (16, 16, 3)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() <= 4


@pytest.mark.parametrize(
    'content, expected',
    [
        (png(1, 0, [b'\x40']), [[0] * 3, [255] * 3]),
        (png(4, 0, [b'\x0f']), [[0] * 3, [255] * 3]),
        (png(8, 3, [b'\0\1'], palette(255)), [[0, 1, 2], [3, 4, 5]]),
        (png(8, 4, [bytes([7, 255, 9, 255])]), [[7] * 3, [9] * 3]),
        (png(8, 6, [bytes([1, 2, 3, 255, 4, 5, 6, 255])]), [[1, 2, 3], [4, 5, 6]]),
        (b'P2 # by hand\n2 1 100\n0 100', [[0] * 3, [255] * 3]),
        (b'P4 2 1\n\x40', [[255] * 3, [0] * 3]),
    ],
    ids=['1 bit', '4 bits', 'palette', 'grey and alpha', 'rgb and alpha', 'pgm of 100', 'pbm'],
)
def test_exact_forms_become_rgb(content, expected):
    np.testing.assert_array_equal(_decoded(content, (1, 2, 3))[0], expected)


@pytest.mark.parametrize('turn', range(1, 9))
def test_images_are_upright_by_their_exif_orientation(turn):
    """Pillow's own exif_transpose is the reference; orientation 6 is a quarter turn."""
    exif = Image.Exif()
    exif[0x0112] = turn
    content = encoded(FACE, exif=exif.tobytes())
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert expected.shape == (SHAPE if turn < 5 else (10, 12, 3))
    np.testing.assert_array_equal(_decoded(content, expected.shape), expected)


def test_damaged_exif_data_do_not_matter():
    content = encoded(FACE, exif=b'Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\3')
    np.testing.assert_array_equal(_decoded(content), FACE)


def test_the_first_picture_of_a_jpeg_with_several_counts():
    still = Image.fromarray(FACE)
    content = encoded(still, 'MPO', save_all=True, append_images=[still.rotate(180)], quality=100)
    np.testing.assert_array_equal(_decoded(content), _decoded(encoded(still, 'JPEG', quality=100)))


PLAIN = encoded(FACE)
JPEG = encoded(FACE, 'JPEG')
STILL = Image.fromarray(FACE)
FRAMES = {'save_all': True, 'append_images': [STILL.rotate(90)]}
BROKEN = {
    'empty': (b'', 'an image. Received: an empty file'),
    'text': (b'<html>', 'JPEG, PNG, PPM, PGM or BMP image. Received: bytes that begin with 3c68'),
    'gif': (encoded(STILL, 'GIF'), 'JPEG, PNG, PPM, PGM or BMP image. Received: bytes that'),
    'tiff': (encoded(STILL, 'TIFF'), 'JPEG, PNG, PPM, PGM or BMP image. Received: bytes that'),
    'short png': (PLAIN[:-40], 'an image that can be decoded. Received: image file is truncated'),
    'short jpeg': (JPEG[:-9], 'an image that can be decoded. Received: image file is truncated'),
    'header only': (PLAIN[:33], 'BMP image. Received: bytes that begin with 89504e47'),
    'short ppm': (b'P6 2 2 255\n123', 'an image that can be decoded. Received: '),
    'animated': (encoded(STILL, **FRAMES), 'a still image. Received: 2 frames'),
    'grey 16': (png(16, 0, [bytes(4)]), 'pixels of 8 bits. Received: 16 bits'),
    'rgb 16': (png(16, 2, [bytes(12)]), 'pixels of 8 bits. Received: 16 bits'),
    'alpha 16': (png(16, 4, [bytes(8)]), 'pixels of 8 bits. Received: 16 bits'),
    'pgm 16': (b'P5 2 1 65535\n1234', 'pixels of 8 bits. Received: 16 bits'),
    'ppm 10': (b'P6 1 1 1023\n123456', 'pixels of 8 bits. Received: 16 bits'),
    'ppm text 16': (b'P3 1 1 65535\n1 2 3', 'pixels of 8 bits. Received: 16 bits'),
    'cmyk': (encoded(STILL.convert('CMYK'), 'JPEG'), 'palette pixels. Received: the mode CMYK'),
    'half alpha': (png(8, 4, [bytes([1, 255, 1, 99])]), 'an opaque image. Received: one with'),
    'no palette entry': (png(8, 3, [b'\0\1'], palette(9)), 'an opaque image. Received: one with'),
    'bomb': (png(8, 0, [b'12'], size=(8001, 8000)), 'at most 64000000 pixels. Received: (8001, 80'),
    'large bomb': (png(8, 0, [b'12'], size=(60000, 60000)), 'at most 64000000 pixels. Received: '),
}


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
@pytest.mark.parametrize('name', sorted(BROKEN))
def test_what_is_refused_is_named_in_one_line(name):
    content, line = BROKEN[name]
    with pytest.raises(ValueError) as error:
        _decoded(content)
    assert str(error.value).startswith('a.png: expected ') and line in str(error.value)
    assert '\n' not in str(error.value)


def test_a_file_name_with_control_characters_does_not_break_the_line():
    with pytest.raises(ValueError, match='^a b.png: expected an image'):
        images.decoded(b'', 'a\nb.png', SHAPE)


def test_any_damage_is_an_error_or_an_image():
    """Each byte of small files is changed in turn: never another exception."""
    refused = 0
    for content in (PLAIN, JPEG, encoded(FACE, 'BMP'), png(8, 3, [b'\0\1'], palette(255))):
        for place in range(len(content)):
            damaged = bytearray(content)
            damaged[place] ^= 0x5A
            try:
                assert _decoded(bytes(damaged)).shape == SHAPE
            except ValueError as error:
                refused += 1
                assert '\n' not in str(error)
    assert refused > 100


def test_texts_are_a_sequence():
    listed = ['a', '', 'grüße', '\udcff/b', 'a']
    found = texts.Texts(listed)
    assert list(found) == listed and len(found) == 5 and found[-2] == '\udcff/b'
    assert found[1:3] == listed[1:3] and found.index('grüße') == 2 and 'c' not in found
    with pytest.raises(IndexError):
        found[5]
    assert texts.Texts(['ab', 'c']).tobytes() != texts.Texts(['a', 'bc']).tobytes()


@pytest.mark.parametrize(
    'given, names, labels',
    [
        (['b', 'a', 'b', '10'], ['10', 'a', 'b'], [2, 1, 2, 0]),
        (['10', '9', '10', '007'], ['007', '9', '10'], [2, 1, 2, 0]),
    ],
)
def test_labels_are_places_among_the_sorted_names(given, names, labels):
    found = texts.Labels()
    for name in given:
        found.append(name)
    numbers, order = found.sorted()
    assert order == names and numbers.tolist() == labels and numbers.dtype == np.int32


class _Failing:
    """One image that cannot be read."""

    def __init__(self, error):
        self._error = error

    def where(self, index):
        return 'a.png'

    def encoded(self, index):
        raise self._error


def test_a_missing_file_is_a_broken_image_and_a_failing_system_is_not():
    missing = _Failing(FileNotFoundError(errno.ENOENT, 'No such file', 'a.png'))
    assert images.examined(missing, 0) == (b'', 'expected an image. Received: No such file')
    damaged = _Failing(ValueError('a.png: expected this. Received: that'))
    assert images.examined(damaged, 0) == (b'', 'expected this. Received: that')
    for number in (errno.EMFILE, errno.EIO, errno.ENOMEM):
        with pytest.raises(OSError):
            images.examined(_Failing(OSError(number, 'no', 'a.png')), 0)
