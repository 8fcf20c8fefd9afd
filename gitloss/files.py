"""Files that are either complete or absent, and files that others may have put in our way."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO, Any


def open_regular(path: str, flags: int, mode: str) -> IO[Any]:
    """Opens a regular file, at once: a FIFO or a device, which could block for ever, is refused.

    Args:
      path: the file.
      flags: of os.open, for example os.O_RDONLY.
      mode: of open.

    Raises:
      OSError: it cannot be opened, or is not a regular file.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, 'not a regular file', path)
    return open(descriptor, mode)


def read(path: str, limit: int = 1 << 28) -> bytes:
    """The bytes of a regular file.

    Raises:
      OSError: it cannot be read, is not a regular file, or has more than `limit` bytes.
    """
    with open_regular(path, os.O_RDONLY, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        content = b'' if size > limit else file.read() or b''  # None: a file of /proc that waits
    if max(size, len(content)) > limit:
        raise OSError(errno.EFBIG, f'more than {limit} bytes', path)
    return content


def append(path: str) -> IO[str]:
    """Opens a text file to append to, created if it is missing; also readable.

    Raises:
      OSError: it cannot be opened, or is not a regular file. A link is not followed: its target is
        no file of ours.
    """
    return open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 'a+')


def write_atomically(path: str, content: str | bytes) -> None:
    """Writes a file of text or bytes completely or not at all: to a temporary file, which is then
    renamed. A file or link of the temporary name is removed first, not written to.

    Raises:
      OSError: the file cannot be written, for example on a full disk; `path` is unchanged.
    """
    temporary = path + '.tmp'
    try:
        if os.path.lexists(temporary):
            os.remove(temporary)
        with open(temporary, 'xb') as file:
            file.write(content.encode('utf-8') if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if os.path.isfile(temporary):
            os.remove(temporary)  # frees its part of a full disk
        raise OSError(error.errno, error.strerror, path)
