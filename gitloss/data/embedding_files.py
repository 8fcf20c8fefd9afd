"""Embeddings in an .npz file: `names` [n] and `embeddings` [n, dim], perhaps more.

Anybody's embeddings can be evaluated so. The file is read without pickle.
"""

from __future__ import annotations

import os
import zipfile
from typing import Sequence

import numpy as np

from gitloss import files
from gitloss.errors import check, one_line, reason

_EXPECTED = 'an .npz file with the arrays names [n] and embeddings [n, dim]'


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def read_arrays(path: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the arrays that an .npz file has, by name.

    Raises:
      ValueError: another format, or something else than a plain array under one of the names.
      OSError: the file cannot be read.
    """
    shown = one_line(path, 5000)
    check(os.path.isfile(path), shown, _EXPECTED, 'no file')
    with files.open_regular(path, os.O_RDONLY, 'rb') as file:
        # Not np.load: that of NumPy 1.21 prints a traceback when its damaged archive is deleted.
        try:
            with zipfile.ZipFile(file) as archive:
                members = set(archive.namelist())
                found = {x: _array(archive, f'{x}.npy') for x in names if f'{x}.npy' in members}
        except Exception as error:  # noqa: BLE001 - damaged archives raise errors of many types
            check(False, shown, _EXPECTED, reason(error))
    return found


def read_npz(path: str) -> tuple[list[str], np.ndarray]:
    """(names, embeddings float [n, dim]).

    Raises:
      ValueError: another format or other shapes, or an embedding that is not finite.
      OSError: the file cannot be read.
    """
    shown, found = one_line(path, 5000), read_arrays(path, ('names', 'embeddings'))
    check(len(found) == 2, shown, _EXPECTED, f'{one_line(str(sorted(found)), 100)} alone')
    names, embeddings = found['names'], found['embeddings']
    is_fit = names.dtype.kind in 'SU' and embeddings.dtype.kind == 'f' and embeddings.ndim == 2
    shapes = f'{names.dtype} {list(names.shape)} and {embeddings.dtype} {list(embeddings.shape)}'
    check(is_fit and names.shape == embeddings.shape[:1] and embeddings.size, shown, _EXPECTED, shapes)
    if names.dtype.kind == 'S':
        names = np.char.decode(names, 'utf-8', 'replace')
    try:
        texts = names.tolist()
    except (ValueError, SystemError) as error:  # no character has such a number
        check(False, shown, 'names in Unicode', error)
    wrong = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    name = one_line(texts[wrong[0]], 200) if len(wrong) else ''
    received = f'NaN or infinity in {len(wrong)} rows, the first is {name!r}'
    check(not len(wrong), shown, 'finite embeddings', received)
    return texts, embeddings


def rows_of(names: Sequence[str], wanted: Sequence[str], path: str) -> np.ndarray:
    """int64 [k]: where the images `wanted` are among `names`, which have no extension.

    Raises:
      ValueError: two of the names are equal, or an image is missing; the line has its name.
    """
    shown, places = one_line(path, 5000), {name: place for place, name in enumerate(names)}
    check(len(places) == len(names), shown, 'different names', 'equal ones')
    rows: list[int] = []
    missing: list[str] = []
    for name in wanted:
        place = places.get(name, places.get(os.path.splitext(name)[0]))
        if place is None:
            missing.append(name)
        else:
            rows.append(place)
    received = f'none of {len(missing)}, the first is {one_line(str(missing[:1]), 200)}'
    check(not missing, shown, f'the {len(wanted)} images of the pairs', received)
    return np.array(rows, np.int64)
