"""Damage to mnist.npz: members, arrays, headers and archives, and pickles that nobody may load."""

import io
import pickle
import random
import struct
import zipfile

import numpy as np

import toys
from damage.cases import SPOILERS, Case, Evil, confined, expecting, said, write
from gitloss import data
from mnist_files import assert_loaded


def arrays():
    (train, train_labels), (test, test_labels) = (
        toys.patterns(30, seed=1),
        toys.patterns(10, seed=2),
    )
    return {'x_train': train, 'y_train': train_labels, 'x_test': test, 'y_test': test_labels}


def npy(array, allow_pickle=False):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=allow_pickle)
    return file.getvalue()


def npz(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compression) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return file.getvalue()


def members(**changes):
    return [(name + '.npy', npy(array)) for name, array in dict(arrays(), **changes).items()]


def _with(name, content):
    """An archive in which one member is replaced."""
    return npz([(key, content if key == name + '.npy' else other) for key, other in members()])


def _forged(
    descr="'|u1'", order='False', shape='(30, 8, 8)', version=(1, 0), body=b'\0' * 1920, text=None
):
    """An npy file with a custom header."""
    header = (text or f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}").encode(
        'latin1'
    )
    header += b' ' * (-(len(header) + 11) % 64) + b'\n'
    size = struct.pack('<H' if version == (1, 0) else '<I', len(header))
    return b'\x93NUMPY' + bytes(version) + size + header + body


def _patched(content, positions, change):
    """Changes a byte of every local and central header: (signature, offset from it)."""
    content = bytearray(content)
    for signature, offset in positions:
        start = content.find(signature)
        while start >= 0:
            content[start + offset] = change(content[start + offset])
            start = content.find(signature, start + 4)
    return bytes(content)


def _load(folder, content):
    path = folder + '/mnist.npz'
    write(folder, {'mnist.npz': content})
    try:
        with confined(folder):
            dataset = data.load('mnist', path)
    except ValueError as error:
        return said(error, path)
    assert_loaded(dataset, arrays())
    return 'correct'


def _refused(name, make, kind='npz'):
    def run(folder):
        Evil.folder = folder  # a pickle is made with it
        return _load(folder, make())

    return expecting(kind, name, run, 'refused')


def _pickled(name, make):
    return _refused(name, make, 'npz with a pickle')


def _accepted(name, make):
    return expecting('npz', name, lambda folder: _load(folder, make()), 'correct')


def cases():
    yield from _member_cases()
    yield from _array_cases()
    yield from _header_cases()
    yield from _archive_cases()
    for seed, spoil in enumerate(SPOILERS * 8):
        run = _spoilt(spoil, random.Random(2000 + seed))
        yield Case('npz, spoilt bytes', f'{spoil.__name__}-{seed}', run)


def _member_cases():
    """Members that are missing, are no arrays or are pickles."""
    evil = np.array([Evil()] * 30, dtype=object)
    for name in arrays():
        yield _refused(
            'without ' + name,
            lambda name=name: npz([member for member in members() if name not in member[0]]),
        )
        yield _pickled('as ' + name, lambda name=name: _with(name, npy(evil, allow_pickle=True)))
        yield _refused('bytes for ' + name, lambda name=name: _with(name, b'no array'))
    yield _pickled('alone', lambda: pickle.dumps(Evil()))
    yield _pickled('alone, old', lambda: pickle.dumps(Evil(), protocol=0))
    yield _pickled('in an npy', lambda: npy(evil, allow_pickle=True))
    yield _pickled(
        'as a member without npy', lambda: npz(members()[1:] + [('x_train', pickle.dumps(Evil()))])
    )
    yield _pickled(
        'in a structure',
        lambda: _with(
            'y_train', _forged("[('a', '|O')]", 'False', '(30,)', body=pickle.dumps(Evil()))
        ),
    )
    yield _refused('an npy', lambda: npy(arrays()['x_train']))
    yield _refused('empty zip', lambda: npz([]))


def _array_cases():
    """Arrays of other types, shapes and values."""
    for dtype in (float, bool, '<U1', np.int64, complex, 'M8[s]', [('a', 'u1')]):
        yield _refused(
            f'images of {np.dtype(dtype)}',
            lambda dtype=dtype: npz(members(x_train=np.zeros((30, 8, 8), dtype))),
        )
    for shape in ((30,), (30, 8, 8, 1), (), (0, 8, 8), (30, 0, 8), (31, 8, 8), (30, 9, 8)):
        yield _refused(
            f'images {shape}', lambda shape=shape: npz(members(x_train=np.zeros(shape, np.uint8)))
        )
    for labels in (
        np.zeros(30),
        np.zeros(30, bool),
        np.zeros((30, 1), np.uint8),
        np.uint8(1),
        np.full(30, -1),
        np.full(30, '1'),
        np.full(30, 1 << 40),
        np.full(30, (1 << 64) - 1, np.uint64),
        np.zeros(29, np.uint8),
        np.zeros(0, np.uint8),
    ):
        yield _refused(
            f'labels {labels.dtype} {labels.shape} {str(labels.ravel()[:1])[:2]}',
            lambda labels=labels: npz(members(y_train=labels)),
        )


def _header_cases():
    code = f'__import__("os").mkdir("{Evil.MARK}")'
    for name, value in [
        ('shape', '(1000000000000, 8, 8)'),
        ('shape', f'({1 << 62}, {1 << 62}, 8)'),
        ('shape', '(-30, 8, 8)'),
        ('shape', "('30', 8, 8)"),
        ('shape', f'({code},)'),
        ('descr', "'|q9'"),
        ('descr', code),
        ('order', '7'),
        ('version', (9, 9)),
        ('body', b'\0' * 7),
        ('text', "{'descr': '|u1', 'fort"),
        ('text', ' '),
        ('text', '[1, 2, 3]'),
        ('text', '(' * 3000),
        ('text', "{'descr': '|u1'\0}"),
        ('text', '\x80\xff\x01' * 20),
    ]:
        yield _refused(
            f'header with {name} {value!r:.40}',
            lambda name=name, value=value: _with('x_train', _forged(**{name: value})),
        )


def _archive_cases():
    """Archives with odd flags, methods and names; and unusual ones that are valid."""
    flags = ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8))
    method = ((b'PK\x03\x04', 8), (b'PK\x01\x02', 10))
    yield _refused('encrypted', lambda: _patched(npz(members()), flags, lambda byte: byte | 1))
    for number in (8, 14, 99):  # deflate, lzma, none at all
        yield _refused(
            f'stored, said to be of method {number}',
            lambda number=number: _patched(npz(members()), method, lambda byte: number),
        )
    for name, place in (('names with a way up', '../'), ('absolute names', '/')):
        yield _refused(
            name, lambda place=place: npz([(place + key, content) for key, content in members()])
        )
    yield _refused('folders', lambda: npz([(name + '/', b'') for name, _ in members()]))
    yield _accepted(
        'members with a way up beside',
        lambda: npz(members() + [('../../evil.npy', npy(np.zeros(3))), ('/evil', b'x')]),
    )
    yield _accepted('deflated', lambda: npz(members(), zipfile.ZIP_DEFLATED))
    yield _accepted('lzma', lambda: npz(members(), zipfile.ZIP_LZMA))
    yield _accepted(
        'Fortran order', lambda: npz(members(x_train=np.asfortranarray(arrays()['x_train'])))
    )
    yield _accepted(
        'big-endian labels', lambda: npz(members(y_train=arrays()['y_train'].astype('>i8')))
    )
    yield _accepted('bytes in front', lambda: b'PK\x03\x04' + npz(members()))


def _spoilt(spoil, chance):
    kind = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    return lambda folder: _load(folder, spoil(npz(members(), kind), chance))
