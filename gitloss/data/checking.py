"""The search for broken images, and for equal images of two identities, before a new run."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from typing import Any, Mapping, Sequence

import numpy as np

from gitloss.data.images import examined
from gitloss.data.integrity import Broken, check_broken, in_threads
from gitloss.data.subset import Subset
from gitloss.errors import check, log, one_line, reason

_BLOCK = 64  # images that a thread checks at a time
SILENCE = 10.0  # seconds between two lines of progress


class _Pool:
    """The images of all splits, one after the other."""

    def __init__(self, splits: Mapping[str, Subset]) -> None:
        self._splits = list(splits.values())
        self.ends = np.cumsum([len(images) for images in self._splits])
        self.labels = np.concatenate([images.labels for images in self._splits])

    def place(self, index: int) -> tuple[Subset, int]:
        """(split of an image, its index there)."""
        number = int(np.searchsorted(self.ends, index, 'right'))
        images = self._splits[number]
        return images, index - int(self.ends[number]) + len(images)

    def where(self, index: int) -> str:
        images, place = self.place(index)
        return images.where(place)

    @property
    def fingerprint(self) -> str:
        prints = ''.join(images.fingerprint for images in self._splits)
        return hashlib.sha256(prints.encode('ascii')).hexdigest()


def without_broken(
    splits: Mapping[str, Subset], names: Sequence[str], most: int | None, known: str = ''
) -> tuple[dict[str, Subset], str]:
    """Leaves out broken images, and all images with the same bytes under two identities.

    Args:
      splits: the images.
      names: the identity of each label.
      most: as --max_broken; None: no check.
      known: the text of an earlier broken.txt, which replaces the check if it is of these images.

    Returns:
      (the other images, the text of broken.txt: a line with path, reason and number for each).

    Raises:
      ValueError: there are more than `most`; the line names the first one.
    """
    pool = _Pool(splits)
    head = f'# data {pool.fingerprint}: '
    if known.startswith(head):
        text = known
    elif most is None:
        return dict(splits), ''
    else:
        text = head + _checked(pool, names, most)
    numbers = list(map(int, re.findall('\t([0-9]+)$', text, re.MULTILINE)))
    largest, total = max(numbers, default=0), len(pool.labels)
    check(largest < total, 'broken.txt', f'numbers of images below {total}', largest)
    is_whole = np.ones(total, bool)
    is_whole[numbers] = False
    parts = np.split(is_whole, pool.ends[:-1])
    return {split: splits[split].part(part) for split, part in zip(splits, parts)}, text


def _checked(pool: _Pool, names: Sequence[str], most: int) -> str:
    """The rest of broken.txt."""
    reasons = sorted(_reasons(pool, names).items())
    count, total = len(reasons), len(pool.labels)
    check_broken([Broken(pool.where(index), text) for index, text in reasons], most)
    lines = [
        f'{one_line(pool.where(index), 5000)}\t{one_line(text)}\t{index}' for index, text in reasons
    ]
    if count:
        log.warning('%d of %d images are broken and left out, see broken.txt', count, total)
    return '\n'.join([f'{count} of {total} images are left out: path, reason, number', *lines, ''])


def _reasons(pool: _Pool, names: Sequence[str]) -> dict[int, str]:
    """{index: why the image is left out}."""
    total = len(pool.labels)
    digests, reasons = np.zeros((total, 20), np.uint8), {}
    start = shown = time.monotonic()

    def of_block(first: int) -> list[tuple[bytes, str]]:
        return [_examined(*pool.place(i)) for i in range(first, min(first + _BLOCK, total))]

    blocks = in_threads(of_block, range(0, total, _BLOCK))
    for index, (digest, text) in enumerate(itertools.chain.from_iterable(blocks)):
        if text:
            reasons[index] = text
        else:
            digests[index] = np.frombuffer(digest, np.uint8)
        if time.monotonic() - shown > SILENCE:
            shown = time.monotonic()
            log.info('checked %d of %d images, %d broken', index + 1, total, len(reasons))
    whole = np.setdiff1d(np.arange(total), list(reasons))
    for index, other in mislabelled(digests[whole], pool.labels[whole]):
        where = f'{pool.where(whole[other])} of {names[pool.labels[whole[other]]]}'
        reasons[int(whole[index])] = (
            f'expected an image of one identity. Received: the same bytes as {where}'
        )
    log.info('checked %d images in %.1f s', total, time.monotonic() - start)
    return reasons


def _examined(images: Subset, index: int) -> tuple[bytes, str]:
    """(SHA-1 of an image, '' or what is wrong with it)."""
    content, problem = examined(images, index)
    return hashlib.sha1(content).digest(), problem


def mislabelled(digests: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """(index, index of the first one of another label) of images with equal bytes and unequal
    labels. digests: uint8 [n, 20].
    """
    words: Any = digests.view(np.uint32)
    order = np.lexsort(words.T)
    is_first = np.append(True, (words[order][1:] != words[order][:-1]).any(axis=1))[: len(order)]
    group = np.cumsum(is_first)
    has_copies = np.bincount(group)[group] > 1
    found = []
    for members in np.split(order[has_copies], np.flatnonzero(is_first[has_copies])[1:]):
        for index in members:
            others = members[labels[members] != labels[index]]
            if len(others):
                found.append((int(index), int(others.min())))
    return found
