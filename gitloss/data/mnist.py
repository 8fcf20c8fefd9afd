"""MNIST, or any data set in its format: a folder of IDX files, gzip or raw, or Keras's mnist.npz.

An IDX file is two zero bytes, a type code (8 = unsigned byte), the number of dimensions, each
dimension as a big-endian uint32, and the values.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import operator
import os
import struct
import zipfile
import zlib
from typing import Tuple

import numpy as np

from gitloss.data.source import ArraySource, Dataset, DataSpec, Preprocessing, Source, mean_image

VALIDATION_SIZE = 5000
_STEMS = {
    'train': ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'),
    'test': ('t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'),
}
_CHECKSUMS = 'SHA256SUMS'  # in `sha256sum` format
_Arrays = Tuple[np.ndarray, np.ndarray]  # images, labels


def _read_bytes(path: str) -> bytes:
    with open(path, 'rb') as file:
        content = file.read()
    if not path.endswith('.gz'):
        return content
    try:
        return gzip.decompress(content)
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
    if content[:4] != magic:
        raise ValueError(
            f'{path}: expected an IDX file of unsigned bytes in {rank} dimensions (magic '
            f'{magic.hex()}). Received: magic {content[:4].hex() or "of an empty file"}'
        )
    if len(content) < header:
        raise ValueError(
            f'{path}: expected an IDX header of {header} bytes. Received: {len(content)} bytes'
        )
    shape = struct.unpack(f'>{rank}I', content[4:header])
    # In Python integers, which an invalid header cannot overflow.
    expected = functools.reduce(operator.mul, shape, 1)
    if len(content) - header != expected:
        raise ValueError(
            f'{path}: expected {expected} bytes of values for shape {list(shape)}. '
            f'Received: {len(content) - header}'
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _verify(folder: str) -> None:
    """Checks the files that SHA256SUMS lists, if the folder has such a file."""
    sums = os.path.join(folder, _CHECKSUMS)
    if not os.path.exists(sums):
        return
    with open(sums, encoding='utf-8', errors='replace') as file:
        entries = [line.split() for line in file if line.strip()]
    for entry in entries:
        if len(entry) != 2 or os.path.basename(entry[1]) != entry[1] or '\0' in entry[1]:
            line = ' '.join(entry)[:100]
            raise ValueError(
                f'{sums}: expected lines of a SHA-256 sum and a file name. Received: {line!r}'
            )
        path = os.path.join(folder, entry[1])
        # A missing file may have been decompressed; otherwise _read_folder reports it.
        if os.path.isfile(path):
            with open(path, 'rb') as content:
                digest = hashlib.sha256(content.read()).hexdigest()
            if digest != entry[0]:
                raise ValueError(
                    f'{path}: expected SHA-256 {entry[0]} as in {sums}. Received: {digest}. '
                    'The file is damaged'
                )


def _names(stem: str) -> list[str]:
    forms = (stem, stem.replace('-idx', '.idx'))
    return [form + ending for form in forms for ending in ('', '.gz')]


def _find(folder: str, stem: str) -> str:
    for name in _names(stem):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise ValueError(
        f'--data_path: expected one of {", ".join(_names(stem))} in {folder}. Received: none of them'
    )


def _read_folder(folder: str) -> dict[str, _Arrays]:
    """The parts of which at least one file exists; ValueError if the other file is missing."""
    _verify(folder)
    present = set(os.listdir(folder))
    parts = [
        part
        for part, stems in _STEMS.items()
        if any(present.intersection(_names(stem)) for stem in stems)
    ]
    return {
        part: (
            read_idx(_find(folder, _STEMS[part][0]), rank=3),
            read_idx(_find(folder, _STEMS[part][1]), rank=1),
        )
        for part in parts or _STEMS
    }


def _read_npz(path: str) -> dict[str, _Arrays]:
    """Like _read_folder, from the arrays x_train, y_train, x_test, y_test."""
    parts = {}
    try:
        # np.load would also accept other kinds of files, and members that are not arrays.
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            names = {part: (f'x_{part}.npy', f'y_{part}.npy') for part in _STEMS}
            present = [part for part in names if members.intersection(names[part])]
            for part in present or names:
                missing = [name[:-4] for name in names[part] if name not in members]
                if missing:
                    raise ValueError(f'{", ".join(missing)} missing')
                with archive.open(names[part][0]) as images, archive.open(names[part][1]) as labels:
                    parts[part] = (
                        np.lib.format.read_array(images, allow_pickle=False),
                        np.lib.format.read_array(labels, allow_pickle=False),
                    )
    # zipfile, its decompressors and NumPy raise about twenty types of errors for invalid bytes.
    except Exception as error:  # noqa: BLE001
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f'{path}: expected an npz file of plain arrays as Keras ships it. Received: {reason}'
        )
    return parts


def _checked(where: str, images: np.ndarray, labels: np.ndarray) -> _Arrays:
    """(images uint8 [n, height, width, 1], labels int32 [n])."""
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(
            f'{where}: expected uint8 images [n, height, width]. '
            f'Received: {images.dtype} {list(images.shape)}'
        )
    if labels.ndim != 1 or labels.dtype.kind not in 'ui':
        raise ValueError(
            f'{where}: expected integer labels [n]. Received: {labels.dtype} {list(labels.shape)}'
        )
    if len(images) != len(labels):
        raise ValueError(
            f'{where}: expected as many labels as images. '
            f'Received: {len(images)} images, {len(labels)} labels'
        )
    if not len(images) or not images[0].size:
        raise ValueError(
            f'{where}: expected at least one image of at least one pixel. '
            f'Received: {list(images.shape)}'
        )
    if labels.min() < 0 or labels.max() > 1 << 24:
        raise ValueError(
            f'{where}: expected labels from 0 on. Received: {labels.min()} to {labels.max()}'
        )
    return images[..., None], labels.astype(np.int32)


def _train_and_valid(
    path: str, wanted: int, images: np.ndarray, labels: np.ndarray
) -> dict[str, Source]:
    """Holds out the first `wanted` training images for validation, at most a tenth."""
    held_out = min(wanted, len(labels) // 10)
    if held_out < 1:
        raise ValueError(
            f'{path}: expected at least 10 training images to hold a tenth out. '
            f'Received: {len(labels)}'
        )
    return {
        'train': ArraySource(images[held_out:], labels[held_out:]),
        'valid': ArraySource(images[:held_out], labels[:held_out]),
    }


def load_mnist(path: str, validation_size: int = VALIDATION_SIZE) -> Dataset:
    """Loads MNIST with the split of the authors' code: the first 5,000 training images are the
    validation set, the other 55,000 the training set.

    Args:
      path: a folder with IDX files (`train-images-idx3-ubyte`, ..., gzip or raw, checked against a
        SHA256SUMS file if it exists) or with `mnist.npz`, or an npz file. The two training files or
        the two test files may be missing.
      validation_size: number of training images to hold out, at most a tenth of them.

    Returns:
      A Dataset.

    Raises:
      ValueError: no data, a damaged file, or counts or shapes that do not match.
      OSError: a file cannot be read.
    """
    archive = path if os.path.isfile(path) else os.path.join(path, 'mnist.npz')
    if not os.path.exists(path):
        raise ValueError(
            '--data_path: expected a folder of IDX files or an npz file. '
            f'Received: {path!r}, which does not exist'
        )
    raw = _read_npz(archive) if os.path.isfile(archive) else _read_folder(path)
    parts = {part: _checked(f'{path} ({part})', *arrays) for part, arrays in raw.items()}
    shapes = [images.shape[1:] for images, _ in parts.values()]
    if shapes[0] != shapes[-1]:
        raise ValueError(
            f'{path}: expected training and test images of one size. '
            f'Received: {list(shapes[0][:2])} and {list(shapes[-1][:2])}'
        )
    splits = _train_and_valid(path, validation_size, *parts['train']) if 'train' in parts else {}
    mean = mean_image(splits['train']) if splits else None
    if 'test' in parts:
        splits['test'] = ArraySource(*parts['test'])
    classes = 1 + max(int(labels.max()) for _, labels in parts.values())
    return Dataset(DataSpec('mnist', shapes[0], classes, Preprocessing(mean=mean)), **splits)
