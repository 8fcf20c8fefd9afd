"""Pairs of images for a verification, in the formats in which they are handed around."""

from __future__ import annotations

import csv
import os
import re
from typing import Callable, Iterable, Iterator, NamedTuple, Sequence

import numpy as np

from gitloss.data.pickled import read_bin
from gitloss.data.texts import text_lines
from gitloss.errors import check, one_line
from gitloss.metrics.verification import stratified_folds

_LIST = 'two images and 0 or 1 (1: of one person), perhaps a fold, separated by tabs or spaces'
_LFW = '`name i j` or `name i name j`, as in the pairs.txt of LFW'
_NUMBER = re.compile('[0-9]{1,9}')


class Pairs(NamedTuple):
    """n pairs of k images.

    names: the k images: paths relative to a folder, with an extension or without; of a .bin, where
      an image stands in it.
    first, second: int64 [n], indices of the images.
    genuine: bool [n], whether both are of one person.
    folds: int64 [n]; None: the file has none.
    people: the k people; None: the file does not tell, or it contradicts itself.
    encoded: the k encoded images of a .bin; None: they are files.
    """

    names: Sequence[str]
    first: np.ndarray
    second: np.ndarray
    genuine: np.ndarray
    folds: np.ndarray | None = None
    people: Sequence[str] | None = None
    encoded: Sequence[bytes] | None = None

    def split(self, count: int = 10) -> np.ndarray | None:
        """The folds, if there are two or more, else `count` stratified ones; None for one pair."""
        if self.folds is not None and len(np.unique(self.folds)) > 1:
            return self.folds
        count = min(count, len(self.genuine))
        return stratified_folds(self.genuine, count) if count > 1 else None

    def identities(self) -> np.ndarray | None:
        """[n, 2], the numbers of the two people of each pair; None if they are not known."""
        if self.people is None:
            return None
        _, numbers = np.unique(np.array(self.people), return_inverse=True)
        return np.stack([numbers[self.first], numbers[self.second]], axis=1)


class _Collected:
    """Pairs as they are read."""

    def __init__(self, person: Callable[[str], str]) -> None:
        self._person = person
        self._numbers: dict[str, int] = {}
        self._rows: list[tuple[int, int, bool]] = []
        self.folds: list[int] = []

    def add(self, images: Iterable[str], is_genuine: bool) -> None:
        one, other = (self._numbers.setdefault(x, len(self._numbers)) for x in images)
        self._rows.append((one, other, is_genuine))

    def pairs(self, path: str) -> Pairs:
        check(self._rows, one_line(path, 5000), 'pairs of images', 'none')
        first, second, genuine = np.array(self._rows, np.int64).T
        names, genuine = list(self._numbers), genuine.astype(bool)
        people = np.array([self._person(name) for name in names])
        # Where the folders of the images are not people, nothing is known of people.
        is_known = np.all((people[first] == people[second]) == genuine) and all(people)
        folds = np.array(self.folds, np.int64) if self.folds else None
        return Pairs(names, first, second, genuine, folds, people.tolist() if is_known else None)


def _rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """(number, fields) of the lines of a text that are not empty."""
    delimiter = '\t' if '\t' in next(filter(None, text_lines(path)), '') else ' '
    rows = csv.reader(text_lines(path), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in rows:
            if any(row):
                yield rows.line_num, [field.strip() for field in row]
    except csv.Error as error:
        check(False, f'{one_line(path, 5000)}, line {rows.line_num}', _LIST, error)


def _words(path: str) -> Iterator[tuple[int, list[str]]]:
    """(number, words) of the lines of a text that are not empty."""
    for number, text in enumerate(text_lines(path), 1):
        if text:
            yield number, text.split('\t' if '\t' in text else None)


def _refuse(path: str, number: int, expected: str, fields: Sequence[str]) -> None:
    received = repr(one_line(' '.join(fields), 200))
    check(False, f'{one_line(path, 5000)}, line {number}', expected, received)


def _read_list(path: str) -> Pairs:
    pairs = _Collected(os.path.dirname)
    width = 0
    for number, fields in _rows(path):
        width = width or len(fields)
        is_fit = len(fields) == width and width in (3, 4) and fields[2] in ('0', '1')
        if not is_fit or not all(fields) or '\0' in fields[0] + fields[1]:
            _refuse(path, number, _LIST, fields)
        if width == 4:
            if not _NUMBER.fullmatch(fields[3]):
                _refuse(path, number, 'a fold, a whole number, in the fourth place', fields)
            pairs.folds.append(int(fields[3]))
        pairs.add(fields[:2], fields[2] == '1')
    return pairs.pairs(path)


def _read_lfw(path: str) -> Pairs:
    """pairs.txt: `10<TAB>300`, then for each of 10 folds 300 genuine and 300 impostor pairs. A file
    of one fold begins with one number.
    """
    lines = _words(path)
    first = next(lines)[1]
    folds, each = (1, int(first[0])) if len(first) == 1 else (int(first[0]), int(first[1]))
    pairs = _Collected(lambda name: name.split('/')[0])
    for number, fields in lines:
        name, numbers = fields[0], [fields[1], fields[-1]] if len(fields) > 1 else []
        is_fit = len(fields) in (3, 4) and all(map(_NUMBER.fullmatch, numbers))
        if not is_fit or any(not x or '/' in x or '\0' in x for x in (name, fields[-2])):
            _refuse(path, number, _LFW, fields)
        second = name if len(fields) == 3 else fields[2]
        images = (f'{who}/{who}_{int(n):04d}' for who, n in zip((name, second), numbers))
        pairs.folds.append((len(pairs.folds)) // (2 * each) if each else 0)
        pairs.add(images, len(fields) == 3)
    found, expected = len(pairs.folds), folds * 2 * each
    check(found == expected, one_line(path, 5000), f'{expected} pairs, as line 1 says', found)
    result = pairs.pairs(path)
    return result if folds > 1 else result._replace(folds=None)


def _cfp_images(folder: str, kind: str) -> list[str]:
    """Pair_list_F.txt or Pair_list_P.txt: `number path`, the path relative to the folder Protocol,
    here to the folder of Protocol.
    """
    path = os.path.join(folder, f'Pair_list_{kind}.txt')
    images: list[str] = []
    for number, fields in _rows(path):
        if len(fields) != 2 or fields[0] != str(len(images) + 1):
            _refuse(path, number, f'{len(images) + 1} and the path of an image', fields)
        images.append(os.path.normpath(os.path.join('Protocol', fields[1])))
    return images


def _read_cfp(path: str) -> Pairs:
    """A folder Protocol/Split/FF or FP of CFP, with 01/same.txt, 01/diff.txt, ..., 10/diff.txt of
    lines `i,j`: the i-th frontal image and the j-th frontal, or profile, one.
    """
    protocol, kind = os.path.dirname(os.path.dirname(path)), os.path.basename(path)
    shown = one_line(path, 5000)
    check(kind in ('FF', 'FP'), shown, 'a file of pairs, or Protocol/Split/FF or FP of CFP', kind)
    lists = [_cfp_images(protocol, letter) for letter in kind]
    pairs = _Collected(lambda name: name.split('/')[-3] if name.count('/') > 1 else '')
    folds = sorted(name for name in os.listdir(path) if _NUMBER.fullmatch(name))
    for fold in folds:
        for name in ('same.txt', 'diff.txt'):
            part = os.path.join(path, fold, name)
            for number, text in enumerate(text_lines(part), 1):
                fields = [field.strip() for field in text.split(',')]
                places = [int(field) for field in fields if _NUMBER.fullmatch(field)]
                if not text:
                    continue
                if len(places) != 2 or any(not 0 < p <= len(x) for p, x in zip(places, lists)):
                    expected = f'i,j of {len(lists[0])} and {len(lists[1])} images'
                    _refuse(part, number, expected, [text])
                pairs.add((x[p - 1] for p, x in zip(places, lists)), name == 'same.txt')
                pairs.folds.append(int(fold))
    return pairs.pairs(path)


def read_pairs(path: str) -> Pairs:
    """Reads pairs of any of these formats, which it recognises:

    - pairs.txt of LFW: `name i j` and `name i name j`, images `name/name_0001`;
    - a list: two images, 0 or 1, and perhaps a fold, in each line;
    - a folder Protocol/Split/FF or FP of CFP;
    - a .bin of insightface, with its images.

    Raises:
      ValueError: another format, or no pairs; the message has the path and the number of the line.
      OSError: a file cannot be read.
    """
    path = path.rstrip('/') or path
    if os.path.isdir(path):
        return _read_cfp(os.path.abspath(path))
    if path.endswith('.bin'):
        images, genuine = read_bin(path)
        numbers = np.arange(len(genuine))
        names = [f'pair {i // 2 + 1}, image {i % 2 + 1}' for i in range(len(images))]
        return Pairs(names, 2 * numbers, 2 * numbers + 1, genuine, encoded=images)
    check(os.path.getsize(path) < 1 << 30, one_line(path, 5000), 'a text below 1 GiB', 'a larger')
    first = next((words for _, words in _words(path)), [])
    is_lfw = len(first) < 3 and first and all(map(_NUMBER.fullmatch, first))
    return _read_lfw(path) if is_lfw else _read_list(path)
