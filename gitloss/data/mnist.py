"""MNIST, or any data set in its format: a folder of IDX files, gzip or raw, or Keras's mnist.npz.

An IDX file is two zero bytes, a type code (8 = unsigned byte), the number of dimensions, each
dimension as a big-endian uint32, and the values.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import itertools
import operator
import os
import struct
import zipfile
import zlib
from typing import Any, Tuple

import numpy as np

from gitloss import files
from gitloss.data.source import ArraySource, Dataset, DataSpec, Preprocessing, Source, mean_image
from gitloss.errors import check, reason

_STEMS = {
    'train': ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'),
    'test': ('t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'),
}
_LARGEST = 1 << 34  # bytes of a file
_Arrays = Tuple[np.ndarray, np.ndarray]  # images, labels


def _read_bytes(path: str) -> bytes:
    content = files.read(path, _LARGEST)
    try:
        return gzip.decompress(content) if path.endswith('.gz') else content
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise ValueError(
            f'{path}: expected a complete gzip file. Received: {error or "a truncated file"}'
        )


def read_idx(path: str, rank: int) -> np.ndarray:
    """Reads one IDX file of unsigned bytes.

    Args:
      path: the file, gzip if it ends in .gz.
      rank: the number of dimensions it must have.

    Returns:
      A uint8 array.

    Raises:
      ValueError: not IDX, wrong type or rank, or a size that does not match the header.
      OSError: the file cannot be read.
    """
    content = _read_bytes(path)
    header = 4 + 4 * rank
    magic = bytes([0, 0, 8, rank])
    check(
        content[:4] == magic,
        path,
        f'an IDX file of unsigned bytes in {rank} dimensions (magic {magic.hex()})',
        f'magic {content[:4].hex() or "of an empty file"}',
    )
    check(
        len(content) >= header, path, f'an IDX header of {header} bytes', f'{len(content)} bytes'
    )
    shape = struct.unpack(f'>{rank}I', content[4:header])
    # In Python integers, which an invalid header cannot overflow.
    count = functools.reduce(operator.mul, shape, 1)
    check(
        len(content) - header == count,
        path,
        f'{count} bytes of values for shape {list(shape)}',
        len(content) - header,
    )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _verify(sums: str) -> None:
    """Checks the files that `sums`, a file in `sha256sum` format, lists."""
    lines = files.read(sums).decode('utf-8', 'replace').split('\n')
    for entry in filter(None, map(str.split, lines)):
        check(
            len(entry) == 2 and os.path.basename(entry[1]) == entry[1] and '\0' not in entry[1],
            sums,
            'lines of a SHA-256 sum and a file name',
            repr(' '.join(entry)[:100]),
        )
        path = os.path.join(os.path.dirname(sums), entry[1])
        # A missing file may have been decompressed; otherwise _read_folder reports it.
        if os.path.isfile(path):
            digest = hashlib.sha256(files.read(path, _LARGEST)).hexdigest()
            check(
                digest == entry[0],
                path,
                f'SHA-256 {entry[0]} as in {sums}',
                f'{digest}. The file is damaged',
            )


def _is_there(path: str) -> bool:
    """Also of a FIFO or a device, which the reader then refuses by its name."""
    return os.path.exists(path) and not os.path.isdir(path)


def _names(stem: str) -> list[str]:
    return [
        form + ending for form in (stem, stem.replace('-idx', '.idx')) for ending in ('', '.gz')
    ]


def _read_folder(folder: str) -> dict[str, _Arrays]:
    """The parts of which at least one file exists; ValueError if the other file is missing."""
    sums = os.path.join(folder, 'SHA256SUMS')
    if os.path.exists(sums):
        _verify(sums)
    found = {
        stem: [name for name in _names(stem) if _is_there(os.path.join(folder, name))]
        for stem in itertools.chain(*_STEMS.values())
    }
    parts = {part: stems for part, stems in _STEMS.items() if any(found[stem] for stem in stems)}
    for stem in itertools.chain(*(parts or _STEMS).values()):
        expected = f'one of {", ".join(_names(stem))} in {folder}'
        check(found[stem], '--data_path', expected, 'none of them')
    return {
        part: (
            read_idx(os.path.join(folder, found[images][0]), rank=3),
            read_idx(os.path.join(folder, found[labels][0]), rank=1),
        )
        for part, (images, labels) in parts.items()
    }


def _read_npz(path: str) -> dict[str, _Arrays]:
    """Like _read_folder, from the arrays x_train, y_train, x_test, y_test."""
    names = {part: (f'x_{part}.npy', f'y_{part}.npy') for part in _STEMS}
    try:
        # np.load would also accept other kinds of files, and members that are not arrays.
        with files.open_regular(path, os.O_RDONLY, 'rb') as file, zipfile.ZipFile(file) as archive:
            members = set(archive.namelist())
            parts = [part for part in names if members.intersection(names[part])] or list(names)
            missing = [n[:-4] for part in parts for n in names[part] if n not in members]
            if missing:
                raise ValueError(f'{", ".join(missing)} missing')
            arrays = {
                name: np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
                for part in parts
                for name in names[part]
            }
            return {part: (arrays[f'x_{part}.npy'], arrays[f'y_{part}.npy']) for part in parts}
    # zipfile, its decompressors and NumPy raise about twenty types of errors for invalid bytes.
    except Exception as error:  # noqa: BLE001
        raise ValueError(
            f'{path}: expected an npz file of plain arrays as Keras ships it. '
            f'Received: {reason(error)}'
        )


def _checked(where: str, images: np.ndarray, labels: np.ndarray) -> _Arrays:
    """(images uint8 [n, height, width, 1], labels int32 [n])."""
    check(
        images.ndim == 3 and images.dtype == np.uint8,
        where,
        'uint8 images [n, height, width]',
        f'{images.dtype} {list(images.shape)}',
    )
    check(
        labels.ndim == 1 and labels.dtype.kind in 'ui',
        where,
        'integer labels [n]',
        f'{labels.dtype} {list(labels.shape)}',
    )
    check(
        len(images) == len(labels),
        where,
        'as many labels as images',
        f'{len(images)} images, {len(labels)} labels',
    )
    check(images.size, where, 'at least one image of at least one pixel', list(images.shape))
    check(
        labels.min() >= 0 and labels.max() <= 1 << 24,
        where,
        'labels from 0 on',
        f'{labels.min()} to {labels.max()}',
    )
    return images[..., None], labels.astype(np.int32)


def _train_and_valid(
    path: str, wanted: int, images: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Holds out the first `wanted` training images for validation, at most a tenth."""
    held_out = min(wanted, len(labels) // 10)
    check(held_out >= 1, path, 'at least 10 training images to hold a tenth out', len(labels))
    return {
        'train': ArraySource(images[held_out:], labels[held_out:]),
        'valid': ArraySource(images[:held_out], labels[:held_out]),
    }


def load_mnist(path: str, settings: Any = None, validation_size: int = 5000) -> Dataset:
    """Loads MNIST; the first 5,000 training images are the validation set, as in the authors' code.

    Args:
      path: a folder with IDX files (`train-images-idx3-ubyte`, ..., gzip or raw, checked against a
        SHA256SUMS file if it exists) or with `mnist.npz`, or an npz file. The two training files or
        the two test files may be missing.
      settings: for images in files; not used.
      validation_size: number of training images to hold out, at most a tenth of them.

    Returns:
      A Dataset.

    Raises:
      ValueError: no data, a damaged file, or counts or shapes that do not match.
      OSError: a file cannot be read.
    """
    archive = path if _is_there(path) else os.path.join(path, 'mnist.npz')
    check(
        os.path.exists(path),
        '--data_path',
        'a folder of IDX files or an npz file',
        f'{path!r}, which does not exist',
    )
    raw = _read_npz(archive) if _is_there(archive) else _read_folder(path)
    parts = {part: _checked(f'{path} ({part})', *arrays) for part, arrays in raw.items()}
    shapes = [images.shape[1:] for images, _ in parts.values()]
    check(
        shapes[0] == shapes[-1],
        path,
        'training and test images of one size',
        f'{list(shapes[0][:2])} and {list(shapes[-1][:2])}',
    )
    splits = _train_and_valid(path, validation_size, *parts['train']) if 'train' in parts else {}
    mean = mean_image(splits['train']) if splits else None
    if 'test' in parts:
        splits['test'] = ArraySource(*parts['test'])
    classes = 1 + max(int(labels.max()) for _, labels in parts.values())
    return Dataset(DataSpec('mnist', shapes[0], classes, Preprocessing(mean=mean)), **splits)
