"""Subnormal numbers as zero, on the thread that runs a session.

The threads of TensorFlow compute so. But a session of this project runs its operations on the
thread of its caller, see `devices`, and a processor takes a hundred times as long for an operation
with such a number. Weights of units that are never active become subnormal under weight decay.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
from typing import Any, Iterator

# Of fenv_t in glibc on x86-64: its size in words, and which of them is the register MXCSR.
_WORDS, _MXCSR = 8, 7
_AS_ZERO = 0x8040  # the bits flush-to-zero, for results, and denormals-are-zero, for operands


def _library() -> Any:
    """The library that reads and writes the register; None: of another system."""
    if platform.machine() != 'x86_64' or platform.libc_ver()[0] != 'glibc':
        return None
    try:
        return ctypes.CDLL('libm.so.6')
    except OSError:
        return None


_LIBM = _library()
IS_SUPPORTED = _LIBM is not None  # elsewhere numbers stay as they are


@contextlib.contextmanager
def as_zero() -> Iterator[None]:
    """Subnormal operands and results of this thread are 0 in the context."""
    if _LIBM is None:
        yield
        return
    before = (ctypes.c_uint32 * _WORDS)()
    _LIBM.fegetenv(before)
    changed = (ctypes.c_uint32 * _WORDS)(*before)
    changed[_MXCSR] |= _AS_ZERO
    _LIBM.fesetenv(changed)
    try:
        yield
    finally:
        _LIBM.fesetenv(before)
