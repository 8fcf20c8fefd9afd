"""Files that are either complete or absent."""

from __future__ import annotations

import os


def write_atomically(path: str, content: str | bytes) -> None:
    """Writes a file of text or bytes completely or not at all: to a temporary file, which is then
    renamed.

    Raises:
      OSError: the file cannot be written, for example on a full disk; `path` is unchanged.
    """
    temporary = path + '.tmp'
    try:
        with open(temporary, 'wb') as file:
            file.write(content.encode('utf-8') if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if os.path.exists(temporary):
            os.remove(temporary)  # frees its part of a full disk
        raise OSError(error.errno, error.strerror, path)
