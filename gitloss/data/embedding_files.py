"""Embeddings in an .npz file: `names` [n] and `embeddings` [n, dim], perhaps more.

Anybody's embeddings can be evaluated so. The file is read without pickle.
"""

from __future__ import annotations

import os
import zipfile
from typing import Sequence

import numpy as np

from gitloss.errors import check, one_line, reason

_EXPECTED = 'an .npz file with the arrays names [n] and embeddings [n, dim]'


def read_npz(path: str) -> tuple[list[str], np.ndarray]:
    """(names, embeddings float [n, dim]).

    Raises:
      ValueError: another format or other shapes, or an embedding that is not finite.
      OSError: the file cannot be read.
    """
    shown = one_line(path, 5000)
    check(os.path.isfile(path), shown, _EXPECTED, 'no file')
    try:
        with np.load(path, allow_pickle=False) as file:
            names, embeddings = file['names'], file['embeddings']
    except OSError:
        raise
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        check(False, shown, _EXPECTED, reason(error))
    is_fit = names.dtype.kind in 'SU' and embeddings.dtype.kind == 'f' and embeddings.ndim == 2
    shapes = f'{names.dtype} {list(names.shape)} and {embeddings.dtype} {list(embeddings.shape)}'
    check(is_fit and names.shape == embeddings.shape[:1] and embeddings.size, shown, _EXPECTED, shapes)
    if names.dtype.kind == 'S':
        names = np.char.decode(names, 'utf-8', 'replace')
    texts = names.tolist()
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
