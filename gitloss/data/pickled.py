"""The .bin files of insightface: pairs of encoded images in a pickle, read without executing it.

A pickle can call any function. Here it can only make bytes and NumPy arrays.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, Callable

import numpy as np

from gitloss import files
from gitloss.errors import check, one_line, reason

_MOST_BYTES = 1 << 31


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """_codecs.encode, by which protocols 0 to 2 make bytes."""
    check(encoding in ('latin1', 'latin-1'), 'encoding', 'latin1', encoding)
    return text.encode('latin1')


def _reconstruct(*_: Any) -> np.ndarray:
    """An empty array, whatever the shape: the true one follows with the content. A pickle cannot
    ask for terabytes.
    """
    return np.ndarray((0,), np.uint8)


def _from_buffer(content: Any, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    """An array of protocol 5."""
    return np.frombuffer(content, dtype).reshape(shape, order=order)  # type: ignore[call-overload]


def _scalar(dtype: np.dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype, 1)[0]


_CALLABLE: dict[str, Callable[..., Any]] = {
    '_codecs.encode': _encode,
    'numpy.ndarray': _reconstruct,
    'numpy.dtype': np.dtype,
}
for _core in ('numpy.core', 'numpy._core'):  # before NumPy 2 and since
    _CALLABLE[f'{_core}.multiarray._reconstruct'] = _reconstruct
    _CALLABLE[f'{_core}.multiarray.scalar'] = _scalar
    _CALLABLE[f'{_core}.numeric._frombuffer'] = _from_buffer


class _Unpickler(pickle.Unpickler):
    """Calls nothing but what _CALLABLE has."""

    def find_class(self, module: str, name: str) -> Any:
        found = _CALLABLE.get(f'{module}.{name}')
        check(found, 'pickle', 'bytes and arrays only', one_line(f'{module}.{name}', 100))
        return found


def read_bin(path: str) -> tuple[list[bytes], np.ndarray]:
    """(encoded images, genuine bool [n]) of n pairs: images 2 i and 2 i + 1 are those of pair i.

    Raises:
      ValueError: the file is no pickle of (images, list of bool), or would execute code.
      OSError: it cannot be read.
    """
    shown, content = one_line(path, 5000), files.read(path, _MOST_BYTES)
    expected = 'a pickle of (encoded images, list of bool), as of insightface'
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding='bytes').load()
    except Exception as error:  # noqa: BLE001 - unpickling raises errors of any type
        check(False, shown, expected, reason(error))
    is_pair = isinstance(loaded, (list, tuple)) and len(loaded) == 2
    check(is_pair, shown, expected, type(loaded).__name__)
    try:
        images = [_bytes(image) for image in loaded[0]]
        genuine = [int(each) for each in loaded[1]]
    except (TypeError, ValueError) as error:
        check(False, shown, expected, reason(error))
    is_fit = len(images) == 2 * len(genuine) and set(genuine) <= {0, 1} and genuine
    check(is_fit, shown, 'two images for each bool', f'{len(images)} and {len(genuine)}')
    return images, np.array(genuine, bool)


def _bytes(image: Any) -> bytes:
    """The bytes of an image, which OpenCV gives as an array."""
    if isinstance(image, np.ndarray):
        check(image.dtype == np.uint8, 'image', 'bytes', f'an array of {image.dtype}')
        return image.tobytes()
    check(isinstance(image, bytes), 'image', 'bytes', type(image).__name__)
    return image
