"""MNIST, or any data set in its format: a folder of IDX files, gzip or raw, or Keras's mnist.npz.

IDX: two zero bytes, a type code (8 = unsigned byte), the number of dimensions, each dimension as a
big-endian uint32, the values.
"""
from __future__ import annotations

import collections
import gzip
import hashlib
import os
import struct
import zipfile
import zlib

import numpy as np

Split = collections.namedtuple('Split', 'images labels')
Split.__doc__ = 'images: uint8 [n, height, width, channels]; labels: int32 [n].'


class Dataset(collections.namedtuple('Dataset', 'name train valid test num_classes mean_image fingerprint')):
    """Three Splits, the number of classes, the mean of the training images, float32 [height, width,
    channels], in units of pixels / 255, and a SHA-256 over the training images and labels."""

    __slots__ = ()

    @property
    def facts(self):
        """What a checkpoint remembers of the data it was trained on: plain JSON values."""
        return {'name': self.name, 'num_classes': self.num_classes, 'image_shape': list(self.train.images.shape[1:]),
                'fingerprint': self.fingerprint}


VALIDATION_SIZE = 5000
_PARTS = {'train': 'train', 'test': 't10k'}
_CHECKSUMS = 'SHA256SUMS'  # in `sha256sum` format; what it names is verified


def _read_bytes(path):
    with open(path, 'rb') as file:
        content = file.read()
    if not path.endswith('.gz'):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise ValueError('%s: expected a complete gzip file. Received: %s' % (path, error or 'a truncated one'))


def read_idx(path, rank):
    """Reads one IDX file of unsigned bytes.

    Args:
      path: the file, gzip if it ends in .gz.
      rank: the number of dimensions it must have.

    Returns:
      A uint8 array.

    Raises:
      ValueError: not IDX, another type or rank, or fewer or more bytes than the header says.
      OSError: the file cannot be read.
    """
    content = _read_bytes(path)
    header = 4 + 4 * rank
    magic = bytes([0, 0, 8, rank])
    if content[:4] != magic:
        raise ValueError('%s: expected an IDX file of unsigned bytes in %d dimensions (magic %s). Received: magic %s'
                         % (path, rank, magic.hex(), content[:4].hex() or 'of an empty file'))
    if len(content) < header:
        raise ValueError('%s: expected an IDX header of %d bytes. Received: %d bytes' % (path, header, len(content)))
    shape = struct.unpack('>%dI' % rank, content[4:header])
    expected = 1
    for size in shape:  # Python integers: a forged header cannot overflow
        expected *= size
    if len(content) - header != expected:
        raise ValueError('%s: expected %d bytes of values for shape %s. Received: %d'
                         % (path, expected, list(shape), len(content) - header))
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _verify(folder):
    """Compares the files named in SHA256SUMS, if the folder has one, with what they should be."""
    sums = os.path.join(folder, _CHECKSUMS)
    if not os.path.exists(sums):
        return
    with open(sums, encoding='utf-8', errors='replace') as file:
        entries = [line.split() for line in file if line.strip()]
    for entry in entries:
        if len(entry) != 2 or os.path.basename(entry[1]) != entry[1] or '\0' in entry[1]:
            raise ValueError('%s: expected lines of a SHA-256 sum and a file name. Received: %r' % (sums, ' '.join(entry)[:100]))
        path = os.path.join(folder, entry[1])
        if not os.path.isfile(path):
            # the file may stand there unpacked; a missing one is reported by name when it is
            # wanted
            continue
        with open(path, 'rb') as file:
            found = hashlib.sha256(file.read()).hexdigest()
        if found != entry[0]:
            raise ValueError('%s: expected SHA-256 %s as in %s. Received: %s. The file is damaged' % (path, entry[0], sums, found))


def _find(folder, part, kind, rank):
    names = [stem + ending for stem in ('%s-%s-idx%d-ubyte' % (part, kind, rank), '%s-%s.idx%d-ubyte' % (part, kind, rank))
             for ending in ('', '.gz')]
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise ValueError('data_path: expected one of %s in %s. Received: none of them' % (', '.join(names), folder))


def _read_folder(folder):
    _verify(folder)
    return {name: (read_idx(_find(folder, part, 'images', 3), 3), read_idx(_find(folder, part, 'labels', 1), 1))
            for name, part in _PARTS.items()}


def _read_npz(path):
    names, arrays = ('x_train', 'y_train', 'x_test', 'y_test'), {}
    try:
        # not np.load: it also takes other kinds of files, and members that are no arrays
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in names if name + '.npy' not in archive.namelist()]
            if missing:
                raise ValueError('expected the arrays %s, %s missing' % (', '.join(names), ', '.join(missing)))
            for name in names:
                with archive.open(name + '.npy') as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    except Exception as error:  # noqa: BLE001 - zipfile, its decompressors and NumPy raise some twenty kinds for bytes that are wrong
        raise ValueError('%s: expected an npz file of plain arrays as Keras ships it. Received: %s'
                         % (path, str(error).splitlines()[0] if str(error) else type(error).__name__))
    return {name: (arrays['x_' + name], arrays['y_' + name]) for name in _PARTS}


def _checked(path, part, images, labels):
    where = '%s (%s)' % (path, part)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError('%s: expected uint8 images [n, height, width]. Received: %s %s' % (where, images.dtype, list(images.shape)))
    if labels.ndim != 1 or labels.dtype.kind not in 'ui':
        raise ValueError('%s: expected integer labels [n]. Received: %s %s' % (where, labels.dtype, list(labels.shape)))
    if len(images) != len(labels):
        raise ValueError('%s: expected as many labels as images. Received: %d images, %d labels' % (where, len(images), len(labels)))
    if not len(images) or not images[0].size:
        raise ValueError('%s: expected at least one image of at least one pixel. Received: %s' % (where, list(images.shape)))
    if labels.min() < 0 or labels.max() > 1 << 24:
        raise ValueError('%s: expected labels from 0 on. Received: %d to %d' % (where, labels.min(), labels.max()))
    return Split(images[..., None], labels.astype(np.int32))


def mean_image(images):
    """Mean of uint8 images over the first axis in units of pixels / 255, exact before its one
    rounding to float32.
    """
    return (images.sum(axis=0, dtype=np.int64) / (255.0 * len(images))).astype(np.float32)


def load_mnist(path, validation_size=VALIDATION_SIZE):
    """Loads MNIST with upstream's split: the first 5,000 training images are the validation set,
    the other 55,000 train.

    Args:
      path: a folder with the four IDX files (`train-images-idx3-ubyte`, ..., gzip or raw, checked
        against a SHA256SUMS file if there is one) or with `mnist.npz`, or such an npz file itself.
      validation_size: how many of the training images to hold out; a tenth at most when the set is
        small.

    Returns:
      A Dataset.

    Raises:
      ValueError: nothing there, a damaged file, counts or shapes that do not fit together.
      OSError: a file cannot be read.
    """
    archive = path if os.path.isfile(path) else os.path.join(path, 'mnist.npz')
    if not os.path.exists(path):
        raise ValueError('data_path: expected a folder of IDX files or an npz file. Received: %r, which does not exist' % path)
    parts = _read_npz(archive) if os.path.isfile(archive) else _read_folder(path)
    full, test = (_checked(path, part, *parts[part]) for part in ('train', 'test'))
    if full.images.shape[1:] != test.images.shape[1:]:
        raise ValueError('%s: expected training and test images of one size. Received: %s and %s'
                         % (path, list(full.images.shape[1:3]), list(test.images.shape[1:3])))
    held = min(validation_size, len(full.labels) // 10)
    if held < 1:
        raise ValueError('%s: expected at least 10 training images to hold a tenth out. Received: %d' % (path, len(full.labels)))
    train = Split(full.images[held:], full.labels[held:])
    return Dataset('mnist', train, Split(full.images[:held], full.labels[:held]), test,
                   int(max(full.labels.max(), test.labels.max())) + 1, mean_image(train.images),
                   hashlib.sha256(full.images.tobytes() + full.labels.tobytes()).hexdigest())
