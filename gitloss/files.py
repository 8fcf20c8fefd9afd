"""Files that are whole or not there."""

from __future__ import annotations

import os


def write_atomically(path, content):
    """Writes a file of text or bytes whole or not at all: a temporary file beside it, then a
    rename.

    Raises:
      OSError: it could not be written, for a full disk perhaps; what was at `path` stays.
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
            os.remove(temporary)  # on a full disk every byte counts
        raise OSError(error.errno, error.strerror, path)
