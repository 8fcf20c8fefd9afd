"""Damage to IDX files, raw and gzip, and to their SHA256SUMS."""

import functools
import gzip
import itertools
import os
import random
import struct

import numpy as np

import toys
from damage.cases import SPOILERS, Case, confined, expecting, said, write
from gitloss import data
from mnist_files import NAMES, assert_loaded

SIZES = (0, 1, 7, 29, 31, 64, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


@functools.lru_cache(None)
def idx_files():
    """{name: bytes} of a data set of 30 and 10 images of 8x8, raw."""
    files = {}
    for part, count, seed in (('train', 30, 1), ('t10k', 10, 2)):
        images, labels = toys.patterns(count, seed=seed)
        files[f'{part}-images-idx3-ubyte'] = toys.idx_bytes(images)
        files[f'{part}-labels-idx1-ubyte'] = toys.idx_bytes(labels)
    return files


def _stored(content, raw):
    return bytes(content) if raw else gzip.compress(content)


def _write(folder, files, raw):
    write(folder, {name + ('' if raw else '.gz'): content for name, content in files.items()})


def _decoded(folder, name):
    """A minimal reader of IDX files."""
    path = os.path.join(folder, name)
    if os.path.exists(path):
        with open(path, 'rb') as file:
            content = file.read()
    else:
        with open(path + '.gz', 'rb') as file:
            content = gzip.decompress(file.read())
    rank = content[3]
    shape = struct.unpack(f'>{rank}I', content[4 : 4 + 4 * rank])
    return np.array(bytearray(content[4 + 4 * rank :]), np.uint8).reshape(shape)


def _load(folder):
    try:
        with confined(folder):
            dataset = data.load('mnist', folder)
    except ValueError as error:
        return said(error, folder)
    assert_loaded(dataset, {key: _decoded(folder, name) for key, name in NAMES.items()})
    return 'correct'


def _header(name, chance, raw):
    def run(folder):
        files = dict(idx_files())
        content = bytearray(files[name])
        for _ in range(chance.choice((1, 1, 2, 3))):
            field = chance.randrange(1 + content[3] % 8)
            if field == 0:
                content[chance.randrange(4)] = chance.choice((0, 1, 2, 3, 4, 8, 9, 13, 255))
            else:
                content[4 * field : 4 * field + 4] = struct.pack('>I', chance.choice(SIZES))
        files[name] = content
        _write(folder, {key: _stored(value, raw) for key, value in files.items()}, raw)
        return _load(folder)

    return run


def _body(name, spoil, chance, raw):
    def run(folder):
        files = {key: _stored(value, raw) for key, value in idx_files().items()}
        files[name] = spoil(files[name], chance)
        _write(folder, files, raw)
        return _load(folder)

    return run


def _exchanged(first, second):
    def run(folder):
        files = idx_files()
        write(folder, dict(files, **{first: files[second], second: files[first]}))
        return _load(folder)

    return run


def _gzip_header(field):
    """Bytes 4 to 9 of gzip are time, level and system, which readers ignore. The first four are
    magic, method and flags.
    """

    def run(folder):
        files = {key: gzip.compress(content) for key, content in idx_files().items()}
        name = NAMES['x_train']
        content = bytearray(files[name])
        content[field] ^= 1 << field % 8
        _write(folder, dict(files, **{name: bytes(content)}), raw=False)
        outcome = _load(folder)
        assert outcome == 'correct' or field < 4
        return outcome

    return run


def _sums(content):
    def run(folder):
        write(folder, dict(idx_files(), SHA256SUMS=content))
        return _load(folder)

    return run


def cases():
    names = sorted(idx_files())
    for seed in range(56):
        chance = random.Random(seed)
        yield Case(
            'IDX header', f'{seed}', _header(chance.choice(names), chance, raw=seed % 2 == 0)
        )
    for seed, (spoil, raw) in enumerate(itertools.product(SPOILERS, (True, False) * 5)):
        chance = random.Random(1000 + seed)
        kind = 'IDX body, raw' if raw else 'IDX body, gzip'
        run = _body(chance.choice(names), spoil, chance, raw)
        yield Case(kind, f'{spoil.__name__}-{seed}', run)
    for first, second in itertools.combinations(names, 2):
        yield Case('IDX files exchanged', first[:6] + '-' + second[:12], _exchanged(first, second))
    for field in range(10):
        yield Case('gzip header', f'byte-{field}', _gzip_header(field))
    yield from _sums_cases(names[0].encode())


def _sums_cases(name):
    line = b'0' * 64 + b'  '
    bad = [
        line + name,
        b'abc',
        line + b'../../etc/passwd',
        line + b'/etc/passwd',
        b'\xff\xfe\x00',
        b'a b c d',
        line + name + b'\0',
        b'x' * 100000,
    ]
    # Valid, though there is nothing to compare.
    good = [b'', b'\n\n', line + b'no-such-file', line + b'.', line + b'..']
    for word, contents, outcome in (('bad', bad, 'refused'), ('good', good, 'correct')):
        for number, content in enumerate(contents):
            yield expecting('SHA256SUMS', f'{word}-{number}', _sums(content), outcome)
