"""Images of any source -> a folder of TFRecord shards with indexes and a manifest.

A shard holds the next `shard_images` images of the source, as encoded as they were. Its bytes
depend on the source alone. It is written under another name, read back, and renamed once its index
is complete, so that a file of its name is whole, and belongs to a conversion that its index names.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import zlib
from concurrent import futures
from typing import Any, Iterator

import numpy as np

from gitloss import files
from gitloss.backend import tf
from gitloss.data import shards, tfrecord
from gitloss.data.images import ImageSource, examined
from gitloss.data.integrity import Broken, check_broken, in_threads
from gitloss.errors import check, log, one_line, reason

_FORMAT = 1
_BROKEN = 'broken.txt'


class _Conversion:
    """One conversion: which shards there are to be, and which are there.

    Args:
      source: has the images.
      folder: for the shards.
      shard_images: images per shard, the broken ones included.
    """

    def __init__(self, source: ImageSource, folder: str, shard_images: int) -> None:
        self._source, self._folder, self._size = source, folder, shard_images
        count = -(-len(source) // shard_images)
        width = max(5, len(str(count)))
        self.files = [
            f'images-{number:0{width}d}-of-{count:0{width}d}.tfrecord' for number in range(count)
        ]
        text = f'{_FORMAT} {source.fingerprint} {shard_images}'
        self._key = hashlib.sha256(text.encode('ascii')).hexdigest()
        self._is_stopped = threading.Event()
        self._check_folder()

    def _check_folder(self) -> None:
        """Refuses a folder in which anything would be overwritten."""
        found, keys, ours = set(os.listdir(self._folder)), [], {tfrecord.MANIFEST}
        if tfrecord.MANIFEST in found:
            keys.append(tfrecord.read_manifest(self._folder).get('conversion'))
        for name in self.files:
            index = shards.index_path(name)
            if index in found:
                table = shards.read_index(os.path.join(self._folder, name))
                keys.append(table.facts.get('conversion'))
                ours |= {name, index, _BROKEN}
            ours |= {name + '.tmp', index + '.tmp'}
        others = sorted(found - ours)
        is_ours = not others and all(key == self._key for key in keys)
        received = f'{one_line(self._folder, 5000)} with {one_line(repr(others[0]))}' if others else (
            f'{one_line(self._folder, 5000)} with shards of other images, or of another size'
        )
        check(is_ours, '--out_path', 'an empty folder, or one of the same conversion', received)

    def stop(self) -> None:
        """Makes all threads end at their next image."""
        self._is_stopped.set()

    def shard(self, number: int) -> shards.Index:
        """Writes a shard, unless it is there and undamaged."""
        path = os.path.join(self._folder, self.files[number])
        if os.path.lexists(path):
            index = shards.read_index(path)
            if files.digest(path) == index.facts['shard']:
                return index
            log.warning('%s is damaged: it is written again', one_line(path, 5000))
        start = number * self._size
        indices = range(start, min(start + self._size, len(self._source)))
        temporary = path + '.tmp'
        if os.path.lexists(temporary):
            os.remove(temporary)
        try:
            index = self._written(temporary, indices)
            files.write_atomically(shards.index_path(path), index.tobytes())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(temporary)
            raise
        return index

    def _written(self, path: str, indices: range) -> shards.Index:
        """Writes images and reads them back."""
        labels, checksums, lengths, broken = [], [], [], []
        with _tensorflow_errors(path), tf.io.TFRecordWriter(path) as writer:
            for index in indices:
                if self._is_stopped.is_set():
                    raise futures.CancelledError
                content, problem = examined(self._source, index)
                if problem:
                    broken.append([index, problem])
                    continue
                label = int(self._source.labels[index])
                record = shards.example(content, label, self._source.names[label])
                writer.write(record)
                labels.append(label)
                checksums.append(zlib.crc32(record))
                lengths.append(shards.FRAME + len(record))
        is_same = [zlib.crc32(record) for record in shards.records(path)] == checksums
        check(is_same, one_line(path, 5000), 'the records that were written', 'others')
        with files.open_regular(path, os.O_RDONLY, 'rb') as file:
            os.fsync(file.fileno())
        facts = {'conversion': self._key, 'shard': files.digest(path), 'broken': broken}
        offsets = np.cumsum([0, *lengths], dtype=np.int64)
        return shards.Index(offsets, np.array(labels, np.int32), np.array(checksums), facts)

    def finish(self, indexes: list[shards.Index], max_broken: int) -> dict[str, Any]:
        """Writes broken.txt, if there is anything broken, and the manifest; returns the latter."""
        broken = [
            Broken(self._source.where(index), problem)
            for each in indexes
            for index, problem in each.facts['broken']
        ]
        path = os.path.join(self._folder, _BROKEN)
        if broken:
            lines = [f'{one_line(each.where, 5000)}\t{one_line(each.reason)}\n' for each in broken]
            files.write_atomically(path, ''.join(lines))
        else:
            files.remove(path)  # of images that were mended since
        check_broken(broken, max_broken)
        manifest = {
            'format': _FORMAT,
            'conversion': self._key,
            'images': sum(len(each.labels) for each in indexes),
            'broken': len(broken),
            'identities': list(self._source.names),
            'shards': [
                {
                    'file': name,
                    'images': len(each.labels),
                    'bytes': int(each.offsets[-1]),
                    'sha256': each.facts['shard'],
                }
                for name, each in zip(self.files, indexes)
            ],
        }
        content = json.dumps(manifest, indent=1) + '\n'
        files.write_atomically(os.path.join(self._folder, tfrecord.MANIFEST), content)
        return manifest


@contextlib.contextmanager
def _tensorflow_errors(path: str) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f'{one_line(path, 5000)}: {reason(error)}')


def convert(
    source: ImageSource, folder: str, shard_images: int, max_broken: int = 0, threads: int = 0
) -> dict[str, Any]:
    """Writes the images of a source as TFRecord shards, which `tfrecord.open_tfrecord` reads.

    Every image is decoded once. Shards that an earlier call has written are kept, if their
    checksums are right; the bytes of all files are the same as after one call.

    Args:
      source: the images.
      folder: for the shards; it is made if it is missing.
      shard_images: images per shard.
      max_broken: broken images that may be left out.
      threads: that read and decode; 0: one for each core.

    Returns:
      The manifest, see `tfrecord.read_manifest`.

    Raises:
      ValueError: more than `max_broken` images are broken, or the folder has other files in it.
      OSError: a file cannot be read or written.
    """
    os.makedirs(folder, exist_ok=True)
    held = files.Folder(folder)
    is_alone, shown = held.lock(fcntl.LOCK_EX | fcntl.LOCK_NB), one_line(folder, 5000)
    check(is_alone, '--out_path', 'a folder to which no other conversion writes', shown)
    try:
        job, indexes = _Conversion(source, folder, shard_images), []
        results = in_threads(job.shard, range(len(job.files)), threads, job.stop)
        for name, index in zip(job.files, results):
            log.info('%s: %d images', name, len(index.labels))
            indexes.append(index)
        return job.finish(indexes, max_broken)
    finally:
        held.close()
