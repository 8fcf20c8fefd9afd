"""The .bin files of insightface: pairs of encoded images in a pickle, read without executing it.

A pickle can call any function. Here it calls those of _CALLABLE, and sees nothing of NumPy: an
array believes whatever type a pickle gives it, even that its bytes are addresses of objects.
"""

from __future__ import annotations

import io
import pickle
import re
from typing import Any, Callable, NoReturn

import numpy as np

from gitloss import files
from gitloss.errors import check, one_line, reason

_MOST_BYTES = 1 << 31


def _text(given: Any) -> str:
    """A text. Python 2 wrote bytes."""
    return given.decode('latin1') if isinstance(given, bytes) else given


class _Dtype:
    """The dtype of a pickle, of whole numbers or bool.

    Attributes:
      name: for NumPy.
    """

    def __init__(self, name: Any, *_: Any) -> None:
        self.name = _text(name)
        fits = re.fullmatch('[biu][1248]', self.name)
        check(fits, 'dtype', 'whole numbers or bool', one_line(self.name, 100))

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1])
        check(order in ('<', '>', '|', '='), 'dtype', 'an order of bytes', one_line(order, 100))
        self.name = order + self.name[-2:]


class _Array:
    """An array of a pickle: empty until its state follows, whatever shape is asked for.

    Attributes:
      values: the array itself.
    """

    def __init__(self, *_: Any) -> None:
        self.values: Any = np.zeros(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        self.values = _values(content, dtype, shape, 'F' if is_fortran else 'C').values


def _values(content: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> _Array:
    """An array of protocol 5."""
    array = _Array()
    array.values = np.frombuffer(content, np.dtype(dtype.name)).reshape(shape, order=order)
    return array


def _scalar(dtype: _Dtype, content: bytes) -> int:
    return int(np.frombuffer(content, np.dtype(dtype.name), 1)[0])


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """_codecs.encode, by which protocols 0 to 2 make bytes."""
    check(encoding in ('latin1', 'latin-1'), 'encoding', 'latin1', encoding)
    return text.encode('latin1')


class _Function:
    """What a pickle gets in the place of a function: it can be called, but not changed."""

    __slots__ = ('_function',)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise ValueError('expected bytes and arrays only. Received: the state of a function')


_CALLABLE: dict[str, Callable[..., Any]] = {
    '_codecs.encode': _encode,
    'numpy.ndarray': _Array,
    'numpy.dtype': _Dtype,
}
for _core in ('numpy.core', 'numpy._core'):  # before NumPy 2 and since
    _CALLABLE[f'{_core}.multiarray._reconstruct'] = _Array
    _CALLABLE[f'{_core}.multiarray.scalar'] = _scalar
    _CALLABLE[f'{_core}.numeric._frombuffer'] = _values


class _Unpickler(pickle.Unpickler):
    """Calls nothing but what _CALLABLE has."""

    def find_class(self, module: str, name: str) -> Any:
        found = _CALLABLE.get(f'{module}.{name}')
        check(found, 'pickle', 'bytes and arrays only', one_line(f'{module}.{name}', 100))
        return _Function(found) if found else None


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
        images = [_bytes(image) for image in _items(loaded[0])]
        genuine = [int(each) for each in _items(loaded[1])]
    except (TypeError, ValueError) as error:
        check(False, shown, expected, reason(error))
    is_fit = len(images) == 2 * len(genuine) and set(genuine) <= {0, 1} and genuine
    check(is_fit, shown, 'two images for each bool', f'{len(images)} and {len(genuine)}')
    return images, np.array(genuine, bool)


def _items(values: Any) -> Any:
    return values.values if isinstance(values, _Array) else values


def _bytes(image: Any) -> bytes:
    """The bytes of an image, which OpenCV gives as an array."""
    image = _items(image)
    if isinstance(image, np.ndarray):
        check(image.dtype == np.uint8, 'image', 'bytes', f'an array of {image.dtype}')
        return image.tobytes()
    check(isinstance(image, bytes), 'image', 'bytes', type(image).__name__)
    return image
