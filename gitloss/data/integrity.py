"""Whether images can be decoded, and whether shards are as they were written."""

from __future__ import annotations

import collections
import itertools
import os
from concurrent import futures
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence

from gitloss import files
from gitloss.data import tfrecord
from gitloss.data.images import ImageSource, examined
from gitloss.errors import log, one_line, reason

_NAMED = 20  # broken images in the log
_BLOCK = 256  # images that a thread checks at a time
_AHEAD = 2  # items per thread: results that nobody has asked for yet are held in memory


class Broken(NamedTuple):
    """An image that cannot be converted: its path or record, and why."""

    where: str
    reason: str


def check_broken(broken: Sequence[Broken], most: int) -> None:
    """Logs broken images. ValueError, which names the first one, if there are more than `most`."""
    for each in broken[int(len(broken) > most) : _NAMED]:
        log.warning('%s: %s', one_line(each.where, 5000), each.reason)
    if len(broken) > most:
        raise ValueError(
            f'{one_line(broken[0].where, 5000)}: {broken[0].reason} (the first of {len(broken)} '
            f'broken images, more than --max_broken={most})'
        )


def in_threads(
    work: Callable[[Any], Any],
    items: Iterable[Any],
    threads: int = 0,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[Any]:
    """The results of `work`, in the order of the items, of which a few are in work ahead.

    Args:
      threads: 0: one for each core.
      stop: called after an error, and when no more results are wanted.
    """
    threads = threads or os.cpu_count() or 1
    waiting: collections.deque[Any] = collections.deque()
    with futures.ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > _AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            stop()
            for each in waiting:
                each.cancel()
            raise


def damaged_shards(folder: str, threads: int = 0) -> list[str]:
    """An error line for each shard that is not as the manifest says, by SHA-256.

    Raises:
      ValueError: the manifest is damaged.
      OSError: it cannot be read.
    """
    manifest = tfrecord.read_manifest(folder)

    def problem(entry: dict[str, Any]) -> str:
        try:
            path = tfrecord.described_shard(folder, entry, len(manifest['identities'])).path
            found = files.digest(path)
        except (OSError, ValueError) as error:
            return reason(error)
        return '' if found == entry['sha256'] else (
            f'{one_line(path, 5000)}: expected SHA-256 {entry["sha256"]}. Received: {found}'
        )

    return [line for line in in_threads(problem, manifest['shards'], threads) if line]


def broken_images(source: ImageSource, threads: int = 0) -> list[Broken]:
    """Decodes every image once; those that cannot be."""

    def of_block(start: int) -> list[Broken]:
        indices = range(start, min(start + _BLOCK, len(source)))
        problems = [(index, examined(source, index)[1]) for index in indices]
        return [Broken(source.where(index), problem) for index, problem in problems if problem]

    blocks = in_threads(of_block, range(0, len(source), _BLOCK), threads)
    return list(itertools.chain.from_iterable(blocks))
