"""A gallery of enrolled people: an .npz file of embeddings, as trainers.embed writes, and the network
that they are of.
"""

from __future__ import annotations

import fcntl
import os
from typing import NamedTuple, Sequence

import numpy as np

from gitloss import files
from gitloss.data.embedding_files import read_arrays, read_npz
from gitloss.errors import check, one_line


class GalleryFile(NamedTuple):
    """names: of the n images, `person/image`. embeddings: float32 [n, dim]. network: a text that
    tells the network from others; '' is unknown.
    """

    names: Sequence[str]
    embeddings: np.ndarray
    network: str = ''

    @property
    def people(self) -> list[str]:
        """The person of each image: its name up to the last slash."""
        return [name.rpartition('/')[0] or name for name in self.names]

    def added(self, names: Sequence[str], embeddings: np.ndarray) -> GalleryFile:
        """A gallery with these images too. An image of an enrolled name takes its place."""
        rows = dict(zip(self.names, self.embeddings))
        rows.update(zip(names, embeddings))
        return self._replace(names=list(rows), embeddings=np.stack(list(rows.values())))

    def write(self, path: str) -> None:
        """Writes the file, completely or not at all.

        Raises:
          OSError: it cannot be written.
        """
        with files.complete(path) as temporary, open(temporary, 'wb') as file:
            np.savez(
                file,
                names=np.array(self.names),
                embeddings=np.asarray(self.embeddings, np.float32),
                network=np.array(self.network),
            )


def read_gallery(path: str, network: str) -> GalleryFile:
    """The gallery in a file.

    Args:
      network: tells the network that is to be used with it.

    Raises:
      ValueError: it is no gallery, or of another network.
      OSError: it cannot be read.
    """
    names, embeddings = read_npz(path)
    found = str(read_arrays(path, ('network',)).get('network', ''))
    expected = 'embeddings of the network of --ckpt_path and of the same --align'
    check(found in ('', network), one_line(path, 5000), expected, 'those of another one')
    return GalleryFile(names, embeddings, network)


def enrolled(
    path: str, network: str, names: Sequence[str], embeddings: np.ndarray
) -> GalleryFile:
    """Adds images to the gallery in a file, which is created if it is missing. Returns the gallery.

    Two processes that enrol at once wait for each other.

    Raises:
      ValueError: the file is no gallery, or of another network.
      OSError: it cannot be written; it is unchanged then.
    """
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    opened = files.Folder(folder)
    opened.lock(fcntl.LOCK_EX)
    try:
        empty = GalleryFile([], embeddings[:0], network)
        gallery = read_gallery(path, network) if os.path.lexists(path) else empty
        gallery = gallery.added(names, embeddings)
        gallery.write(path)
    finally:
        opened.close()
    return gallery
