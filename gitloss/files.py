"""Files that are either complete or absent, and files and folders that others may have moved or put
in our way.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import weakref
from typing import IO, Any, Iterator


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
    return open(descriptor, mode, encoding=None if 'b' in mode else 'utf-8')


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


def digest(path: str) -> str:
    """The SHA-256 of a regular file of any length, in hexadecimal.

    Raises:
      OSError: it cannot be read, or is not a regular file.
    """
    found = hashlib.sha256()
    with open_regular(path, os.O_RDONLY, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            found.update(block)
    return found.hexdigest()


class Reader:
    """An open regular file, of which any thread reads any part.

    Attributes:
      path: its name.
      size: its length in bytes, when it was opened.

    Raises:
      OSError: it cannot be opened or is not a regular file.
    """

    def __init__(self, path: str) -> None:
        self.path, file = path, open_regular(path, os.O_RDONLY, 'rb')
        self._descriptor = file.fileno()
        self.size = os.fstat(self._descriptor).st_size
        weakref.finalize(self, file.close)

    def read(self, start: int, length: int) -> bytes:
        """The bytes from `start` on: as many as `length`, or up to the end of the file.

        Raises:
          OSError: they cannot be read.
        """
        try:
            # pread refuses numbers near 2**63.
            return os.pread(self._descriptor, length, min(start, self.size))
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.path)


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


@contextlib.contextmanager
def complete(path: str) -> Iterator[str]:
    """A context with a temporary path to write a large file to. At its end the file is renamed to
    `path`; after an error it is removed.

    Raises:
      OSError: the file cannot be written.
    """
    temporary = path + '.tmp'
    remove(temporary)
    try:
        yield temporary
        with open_regular(temporary, os.O_RDONLY, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(temporary)
        raise


def write_below(folder: str, name: str, content: str | bytes) -> None:
    """write_atomically of `name`, a path relative to a folder. Missing folders in the name are
    created, `folder` is not: a deleted one stays deleted.
    """
    *parts, last = name.split(os.sep)
    for part in parts:
        folder = os.path.join(folder, part)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
    write_atomically(os.path.join(folder, last), content)


def remove(path: str) -> None:
    """Removes a folder with its content, a file, or a link, which is not followed. Nothing there is
    no error.
    """
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)


class Folder:
    """An open folder: the same one, whatever happens to its name.

    Attributes:
      path: the name at which it was found.
      close: closes it, as does the end of this object, and so releases its lock.

    Raises:
      OSError: there is no folder at `path`, or it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.close = weakref.finalize(self, os.close, self._descriptor)

    @property
    def is_in_place(self) -> bool:
        """Whether its path still leads to it. An open folder keeps its inode number, so that no
        later one can have it.
        """
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except (FileNotFoundError, NotADirectoryError):
            return False

    @property
    def alias(self) -> str:
        """Another path of it on Linux, as long as it is open: without characters of a pattern."""
        return f'/proc/self/fd/{self._descriptor}'

    def lock(self, operation: int) -> bool:
        """Whether nobody's lock is in the way; True where the file system has no locks of folders.

        Args:
          operation: of fcntl.flock.
        """
        try:
            fcntl.flock(self._descriptor, operation)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True
