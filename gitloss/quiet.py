"""What libraries print on their own, kept from the user unless they fail."""

import contextlib
import os
import sys
import tempfile
from typing import Any, Iterator


def _buffer() -> Any:
    """A temporary file, in memory where the system has such files."""
    if hasattr(os, 'memfd_create'):
        return open(os.memfd_create('stderr'), 'w+b')
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Buffers what C++ code prints to file descriptor 2, and prints it only when the body fails.

    TensorFlow 2.x logs some messages before TF_CPP_MIN_LOG_LEVEL takes effect.
    """
    try:
        sys.stderr.flush()
        buffer, saved = _buffer(), os.dup(2)
    except (AttributeError, OSError):  # there is no stderr, or no folder that can be written
        yield
        return
    with buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except Exception:  # not for Ctrl-C
            buffer.seek(0)
            with contextlib.suppress(OSError):
                os.write(saved, buffer.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
