"""Hundreds of damaged or hostile inputs: each is rejected with one clear line, or read as what it
says.

    python tests/test_bad_input.py     tries all cases and prints a table of their outcomes

The cases are seeded. Each one runs in this process under an alarm, so that a hang fails the test,
and may write only below its own folder. No pickle is ever loaded: each one offered here would
create a file.
"""

import builtins
import collections
import contextlib
import functools
import gzip
import io
import itertools
import json
import logging
import os
import pickle
import random
import shutil
import signal
import struct
import sys
import tempfile
import zipfile

import numpy as np

if __name__ == '__main__':
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import pytest

import toys
from callbacks.centers import CenterMeasurement
from callbacks.checkpoint import Checkpoint
from callbacks.evaluation import Evaluation
from callbacks.history import History
from gitloss import data
from gitloss.backend import tf
from gitloss.errors import DamagedCheckpoint, log
from helpers import pixels
from test_checkpoints import Session
from test_resume import StopAt
from trainers import checkpoints, devices, export, options, run
from trainers.checkpoints import manifest as manifests
from trainers.checkpoints import rundir
from trainers.engine import resuming
from trainers.engine.trainer import Trainer

Case = collections.namedtuple('Case', 'kind name run')
Case.__doc__ = (
    'run(folder) returns what came of it: "refused", "passed over" (the checkpoint before it '
    'serves) or "correct".'
)

SECONDS = 60  # far longer than any case takes; for hangs


def said(error, *names):
    """A clear error: a ValueError of one line that names what is wrong."""
    text = str(error)
    assert isinstance(error, ValueError), repr(error)
    assert text and text.splitlines() == [text] and len(text) < 2000, text
    assert any(name in text for name in names), f'{text}: none of {names} in it'
    return 'refused'


@contextlib.contextmanager
def confined(folder):
    """Fails if anything outside `folder` is opened for writing, created, renamed or removed."""
    outside = []

    def guard(function, paths, writes=lambda args, keywords: True):
        @functools.wraps(function)
        def guarded(*args, **keywords):
            if writes(args, keywords):
                for path in args[:paths]:
                    where = (
                        os.path.realpath(os.fsdecode(path))
                        if isinstance(path, (str, bytes, os.PathLike))
                        else folder
                    )
                    if not (where + os.sep).startswith(os.path.realpath(folder) + os.sep):
                        outside.append(f'{function.__name__} of {where}')
                        raise PermissionError(outside[-1])
            return function(*args, **keywords)

        return guarded

    def opened(args, keywords):
        return set(keywords.get('mode', args[1] if len(args) > 1 else 'r')) & set('wax+')

    kept = [(builtins, 'open', builtins.open), (io, 'open', io.open)] + [
        (os, name, getattr(os, name))
        for name in ('mkdir', 'rename', 'replace', 'remove', 'unlink', 'rmdir', 'symlink')
    ]
    for module, name, function in kept:
        paths = 2 if name in ('rename', 'replace', 'symlink') else 1
        setattr(
            module,
            name,
            guard(function, paths, opened) if name == 'open' else guard(function, paths),
        )
    try:
        yield
    finally:
        for module, name, function in kept:
            setattr(module, name, function)
        assert not outside, outside


class Hang(BaseException):
    """Not an Exception, so that no handler mistakes it for bad input."""


def try_case(case, folder):
    """Runs one case in `folder`. Returns its outcome."""

    def hung(signum, frame):
        raise Hang(f'{case.kind} {case.name}: still at it after {SECONDS} s')

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    try:
        outcome = case.run(str(folder))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert outcome in ('refused', 'passed over', 'correct')
    assert not os.path.exists(os.path.join(str(folder), Evil.MARK))
    return outcome


class Evil:
    """Its pickle creates a file when it is loaded."""

    MARK = 'the-pickle-was-loaded'
    folder = '.'

    def __reduce__(self):
        return os.mkdir, (os.path.join(self.folder, self.MARK),)


# --- bytes and how to spoil them ------------------------------------------------------------------


def flipped(content, chance):
    position = chance.randrange(len(content))
    return (
        content[:position]
        + bytes([content[position] ^ 1 << chance.randrange(8)])
        + content[position + 1 :]
    )


def cut(content, chance):
    return content[: chance.randrange(len(content))]


def lengthened(content, chance):
    return content + bytes(chance.randrange(256) for _ in range(chance.choice((1, 7, 512))))


def spliced(content, chance):
    """One slice of the bytes overwritten by another."""
    size = chance.randrange(1, 40)
    source, target = (chance.randrange(max(1, len(content) - size)) for _ in range(2))
    return content[:target] + content[source : source + size] + content[target + size :]


def noise(content, chance):
    return bytes(chance.randrange(256) for _ in range(chance.choice((0, 1, 3, 16, 300))))


SPOILERS = (flipped, cut, lengthened, spliced, noise)


# --- IDX ------------------------------------------------------------------------------------------


@functools.lru_cache(None)
def idx_files():
    """{name: bytes} of a data set of 30 and 10 images of 8x8, raw."""
    files = {}
    for part, count, seed in (('train', 30, 1), ('t10k', 10, 2)):
        images, labels = toys.patterns(count, seed=seed)
        files[f'{part}-images-idx3-ubyte'] = toys.idx_bytes(images)
        files[f'{part}-labels-idx1-ubyte'] = toys.idx_bytes(labels)
    return files


def zipped(content):
    return gzip.compress(content)


def write(folder, files):
    for name, content in files.items():
        with open(os.path.join(folder, name), 'wb') as file:
            file.write(content)


def decoded(folder, name):
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


def load_idx(folder):
    try:
        with confined(folder):
            dataset = data.load('mnist', folder)
    except ValueError as error:
        return said(error, folder)
    images, labels = (
        decoded(folder, 'train-images-idx3-ubyte'),
        decoded(folder, 'train-labels-idx1-ubyte'),
    )
    np.testing.assert_array_equal(
        np.concatenate([pixels(dataset.valid), pixels(dataset.train)])[..., 0], images
    )
    np.testing.assert_array_equal(
        np.concatenate([dataset.valid.labels, dataset.train.labels]), labels
    )
    np.testing.assert_array_equal(
        pixels(dataset.test)[..., 0], decoded(folder, 't10k-images-idx3-ubyte')
    )
    np.testing.assert_array_equal(dataset.test.labels, decoded(folder, 't10k-labels-idx1-ubyte'))
    return 'correct'


def idx_cases():
    numbers = (0, 1, 7, 29, 31, 64, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)

    def header(name, chance, raw):
        def change(folder):
            files = dict(idx_files())
            content = bytearray(files[name])
            for _ in range(chance.choice((1, 1, 2, 3))):
                field = chance.randrange(1 + content[3] % 8)
                if field == 0:
                    content[chance.randrange(4)] = chance.choice((0, 1, 2, 3, 4, 8, 9, 13, 255))
                else:
                    content[4 * field : 4 * field + 4] = struct.pack('>I', chance.choice(numbers))
            write(
                folder,
                {
                    key + ('' if raw else '.gz'): (bytes if raw else zipped)(
                        content if key == name else value
                    )
                    for key, value in files.items()
                },
            )
            return load_idx(folder)

        return change

    def body(name, spoil, chance, raw):
        def change(folder):
            files = {key: value if raw else zipped(value) for key, value in idx_files().items()}
            files[name] = spoil(files[name], chance)
            write(folder, {key + ('' if raw else '.gz'): value for key, value in files.items()})
            return load_idx(folder)

        return change

    def swapped(first, second):
        def change(folder):
            files = dict(idx_files())
            files[first], files[second] = files[second], files[first]
            write(folder, files)
            return load_idx(folder)

        return change

    def gzip_header(field, value):
        """Bytes 4 to 9 of gzip are time, level and system, which readers ignore. The first four are
        magic, method and flags.
        """

        def change(folder):
            files = {key + '.gz': zipped(content) for key, content in idx_files().items()}
            content = bytearray(files['train-images-idx3-ubyte.gz'])
            content[field] ^= value
            files['train-images-idx3-ubyte.gz'] = bytes(content)
            write(folder, files)
            outcome = load_idx(folder)
            assert outcome == 'correct' or field < 4
            return outcome

        return change

    def sums(content, expected):
        def change(folder):
            write(folder, dict(idx_files(), SHA256SUMS=content))
            outcome = load_idx(folder)
            assert outcome == expected
            return outcome

        return change

    names = sorted(idx_files())
    for seed in range(56):
        chance = random.Random(seed)
        yield Case('IDX header', f'{seed}', header(chance.choice(names), chance, raw=seed % 2 == 0))
    for seed, (spoil, raw) in enumerate(itertools.product(SPOILERS, (True, False) * 5)):
        chance = random.Random(1000 + seed)
        kind = 'IDX body, raw' if raw else 'IDX body, gzip'
        yield Case(kind, f'{spoil.__name__}-{seed}', body(chance.choice(names), spoil, chance, raw))
    for first, second in itertools.combinations(names, 2):
        yield Case('IDX files exchanged', first[:6] + '-' + second[:12], swapped(first, second))
    for field in range(10):
        yield Case('gzip header', f'byte-{field}', gzip_header(field, 1 << field % 8))
    line, name = b'0' * 64 + b'  ', names[0].encode()
    for number, content in enumerate(
        [
            line + name,
            b'abc',
            line + b'../../etc/passwd',
            line + b'/etc/passwd',
            b'\xff\xfe\x00',
            b'a b c d',
            line + name + b'\0',
            b'x' * 100000,
        ]
    ):
        yield Case('SHA256SUMS', f'bad-{number}', sums(content, 'refused'))
    # Valid, though there is nothing to compare.
    for number, content in enumerate(
        [b'', b'\n\n', line + b'no-such-file', line + b'.', line + b'..']
    ):
        yield Case('SHA256SUMS', f'good-{number}', sums(content, 'correct'))


# --- npz ------------------------------------------------------------------------------------------


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


def load_npz(folder, content):
    path = os.path.join(folder, 'mnist.npz')
    write(folder, {'mnist.npz': content})
    try:
        with confined(folder):
            dataset = data.load('mnist', path)
    except ValueError as error:
        return said(error, path)
    expected = arrays()
    np.testing.assert_array_equal(
        np.concatenate([pixels(dataset.valid), pixels(dataset.train)])[..., 0], expected['x_train']
    )
    np.testing.assert_array_equal(
        np.concatenate([dataset.valid.labels, dataset.train.labels]), expected['y_train']
    )
    np.testing.assert_array_equal(pixels(dataset.test)[..., 0], expected['x_test'])
    np.testing.assert_array_equal(dataset.test.labels, expected['y_test'])
    return 'correct'


def forged(
    descr="'|u1'", order='False', shape='(30, 8, 8)', version=(1, 0), body=b'\0' * 1920, text=None
):
    """An npy file with a custom header."""
    header = (text or f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}").encode(
        'latin1'
    )
    header += b' ' * (-(len(header) + 11) % 64) + b'\n'
    return (
        b'\x93NUMPY'
        + bytes(version)
        + struct.pack('<H' if version == (1, 0) else '<I', len(header))
        + header
        + body
    )


def npz_cases():
    def refused(name, make, kind='npz'):
        def run_it(folder):
            Evil.folder = folder
            outcome = load_npz(folder, make())
            assert outcome == 'refused'
            return outcome

        return Case(kind, name, run_it)

    def pickled(name, make):
        return refused(name, make, 'npz with a pickle')

    def accepted(name, make):
        def run_it(folder):
            outcome = load_npz(folder, make())
            assert outcome == 'correct'
            return outcome

        return Case('npz', name, run_it)

    def exchanged(name, content):
        return [(key, content if key == name + '.npy' else other) for key, other in members()]

    def patched(content, position, change):
        """Changes the byte at `position` in every local and central header: (signature, offset from
        it).
        """
        content = bytearray(content)
        for signature, offset in position:
            start = content.find(signature)
            while start >= 0:
                content[start + offset] = change(content[start + offset])
                start = content.find(signature, start + 4)
        return bytes(content)

    evil = np.array([Evil()] * 30, dtype=object)
    for name in arrays():
        yield refused(
            'without ' + name,
            lambda name=name: npz([member for member in members() if name not in member[0]]),
        )
        yield pickled(
            'as ' + name, lambda name=name: npz(exchanged(name, npy(evil, allow_pickle=True)))
        )
        yield refused('bytes for ' + name, lambda name=name: npz(exchanged(name, b'no array')))
    yield pickled('alone', lambda: pickle.dumps(Evil()))
    yield pickled('alone, old', lambda: pickle.dumps(Evil(), protocol=0))
    yield pickled('in an npy', lambda: npy(evil, allow_pickle=True))
    yield pickled(
        'as a member without npy', lambda: npz(members()[1:] + [('x_train', pickle.dumps(Evil()))])
    )
    yield pickled(
        'in a structure',
        lambda: npz(
            exchanged(
                'y_train', forged("[('a', '|O')]", 'False', '(30,)', body=pickle.dumps(Evil()))
            )
        ),
    )
    yield refused('an npy', lambda: npy(arrays()['x_train']))
    yield refused('empty zip', lambda: npz([]))
    for dtype in (float, bool, '<U1', np.int64, complex, 'M8[s]', [('a', 'u1')]):
        yield refused(
            f'images of {np.dtype(dtype)}',
            lambda dtype=dtype: npz(members(x_train=np.zeros((30, 8, 8), dtype))),
        )
    for shape in ((30,), (30, 8, 8, 1), (), (0, 8, 8), (30, 0, 8), (31, 8, 8), (30, 9, 8)):
        yield refused(
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
        yield refused(
            f'labels {labels.dtype} {labels.shape} {str(labels.ravel()[:1])[:2]}',
            lambda labels=labels: npz(members(y_train=labels)),
        )
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
        yield refused(
            f'header with {name} {value!r:.40}',
            lambda name=name, value=value: npz(exchanged('x_train', forged(**{name: value}))),
        )
    flags, method = (
        ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)),
        ((b'PK\x03\x04', 8), (b'PK\x01\x02', 10)),
    )
    yield refused('encrypted', lambda: patched(npz(members()), flags, lambda byte: byte | 1))
    for number in (8, 14, 99):  # deflate, lzma, none at all
        yield refused(
            f'stored, said to be of method {number}',
            lambda number=number: patched(npz(members()), method, lambda byte: number),
        )
    yield refused(
        'names with a way up', lambda: npz([('../' + name, content) for name, content in members()])
    )
    yield refused(
        'absolute names', lambda: npz([('/' + name, content) for name, content in members()])
    )
    yield refused('folders', lambda: npz([(name + '/', b'') for name, _ in members()]))
    yield accepted(
        'members with a way up beside',
        lambda: npz(members() + [('../../evil.npy', npy(np.zeros(3))), ('/evil', b'x')]),
    )
    yield accepted('deflated', lambda: npz(members(), zipfile.ZIP_DEFLATED))
    yield accepted('lzma', lambda: npz(members(), zipfile.ZIP_LZMA))
    yield accepted(
        'Fortran order', lambda: npz(members(x_train=np.asfortranarray(arrays()['x_train'])))
    )
    yield accepted(
        'big-endian labels', lambda: npz(members(y_train=arrays()['y_train'].astype('>i8')))
    )
    yield accepted('bytes in front', lambda: b'PK\x03\x04' + npz(members()))

    def spoilt(spoil, chance):
        kind = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        return lambda folder: load_npz(folder, spoil(npz(members(), kind), chance))

    for seed, spoil in enumerate(SPOILERS * 8):
        yield Case(
            'npz, spoilt bytes',
            f'{spoil.__name__}-{seed}',
            spoilt(spoil, random.Random(2000 + seed)),
        )


# --- flag files -----------------------------------------------------------------------------------


def parse_flags(folder, files, arguments=('--flagfile=a.cfg',)):
    """Parses flag files written to `folder`; the first one is a.cfg."""
    write(folder, files)
    here = os.getcwd()
    os.chdir(folder)
    try:
        # absl prints a warning about a file that includes itself.
        with confined(folder), contextlib.redirect_stderr(io.StringIO()):
            found = options.parse(list(arguments))
    except ValueError as error:
        return said(error, '--', 'flags: ', 'arguments: ')
    finally:
        os.chdir(here)
    assert options.Options(**found.as_dict()) == found
    return 'correct'


def flag_cases():
    def case(name, files, outcome, arguments=('--flagfile=a.cfg',)):
        files = files if isinstance(files, dict) else {'a.cfg': files}

        def run_it(folder):
            found = parse_flags(folder, files, arguments)
            assert found == outcome, found
            return found

        return Case('flag file', name, run_it)

    up_in_the_chain = {f'{n}': b'--flagfile=%d' % (n + 1) for n in range(1, 2000)}
    for number, line in enumerate(
        [
            b'--stepz=3',
            b'--steps',
            b'--steps=',
            b'--steps=three',
            b'--steps=3.5',
            b'--steps=-1',
            b'--steps=0',
            b'--steps=1e3',
            b'--steps=' + b'9' * 6000,
            b'--learning_rate=nan',
            b'--learning_rate=inf',
            b'--learning_rate=1e999',
            b'--learning_rate=0',
            b'--alpha=1.5',
            b'--alpha=',
            b'--evaluate=maybe',
            b'--noevaluate=1',
            b'--noseed',
            b'--device=tpu',
            b'--loss=',
            b'--resume=maybe',
            b'--save_every=-3',
            b'--save_every=3m',
            b'--save_every=0',
            b'--save_every=s',
            b'--batch_size=1000000000000',
            b'--seed=-1',
            b'steps=3',
            b'3',
            b'--=3',
            b'--\xc3\xa9=3',
            b'--steps 3',
            b'--model=a\0b',
            b'--data_path=\0',
            b'--exp_save_dir=/tmp/\0/../..',
            b'--flagfile=/no/such/file',
            b'--flagfile=.',
            b'--flagfile=a\0b',
            b'--flagfile=' + b'x' * 5000,
            b'--undefok',
            b'\xff\xfe-\0-\0',
            b'\x80abc',
            b'--model=\xff',
            b'--steps=3\n--steps=x',
            b'-' * 5000,
            b'x' * 1000000,
            b'--margin=-2',
            b'--embedding_dim=65537',
            b'--scale=-0.1',
            b'--learning_rate=5e-324',
            b'--lambda_g=1e39',
            b'---steps=3x',
            b'--steps=0x',
            b'--center_init=means,zero',
        ]
    ):
        beginning = line[:20].decode('ascii', 'replace').replace('\0', 'NUL')
        yield case(f'{number} {beginning}', line, 'refused')
    for number, content in enumerate(
        [
            b'',
            b'\n\n\n',
            b'--flagfile=',
            b'# --steps=no\n// --steps=no\n',
            b'--steps=3\n' * 5000,
            b'\r\n--steps=3\r\n',
            b'  --steps=3  ',
            b'--steps=0x10',
            b'--undefok=nothing\n--nothing=3',
            b'--model=' + b'y' * 100000,
            b'--flagfile=a.cfg\n--seed=3',
            b'--notf_logs',
            b'-steps=3',
            b'--learning_rate=2e-38',
        ]
    ):
        yield case(f'good {number}', content, 'correct')
    yield case(
        'two that include each other',
        {'a.cfg': b'--flagfile=b.cfg\n--steps=5', 'b.cfg': b'--flagfile=a.cfg'},
        'correct',
    )
    yield case('a chain of 2000', dict({'a.cfg': b'--flagfile=1'}, **up_in_the_chain), 'refused')
    yield case('half on the command line', b'--steps=5', 'refused', ('--flagfile=a.cfg', '--step'))
    good = b'\n'.join(flag.encode() for flag in toys.flags_of(options.Options())) + b'\n'
    for seed, spoil in enumerate(SPOILERS * 7):
        content = spoil(good, random.Random(3000 + seed))
        yield Case(
            'flag file, spoilt bytes',
            f'{spoil.__name__}-{seed}',
            lambda folder, content=content: parse_flags(folder, {'a.cfg': content}),
        )


# --- checkpoints ----------------------------------------------------------------------------------

_HELD = []  # folders that live as long as the process


@functools.lru_cache(None)
def two_checkpoints():
    """A folder with the checkpoints of steps 1 and 2 of a variable [step, step, step], and the
    session that reads them.
    """
    _HELD.append(tempfile.TemporaryDirectory())
    session = Session().__enter__()
    store = checkpoints.CheckpointStore(_HELD[-1].name)
    for step in (1, 2):
        session.session.run(session.assign, {session.value: [step] * 3})
        store.save(
            session.session,
            session.saver,
            step,
            {
                'epoch': 1,
                'options': {'seed': 1},
                'dataset': {'name': 'mnist'},
                'metrics': {'valid_acc': 0.5},
                'best': {},
                'versions': {},
                'logs': {'step': step},
                'totals': {},
                'timing': {'seconds': 1.0, 'steps': 1},
                'callbacks': {'History': {'rows': []}},
            },
        )
    return _HELD[-1].name, session


def read_checkpoint(folder, spoil):
    """Damages a copy of the newer of two checkpoints, and reads it in every way there is."""
    source, run_of = two_checkpoints()
    store = checkpoints.CheckpointStore(os.path.join(folder, 'ckpt'))
    shutil.copytree(source, store.folder)
    newest = os.path.join(store.folder, 'step-00000002')
    spoil(newest)
    with confined(folder), logging_to(io.StringIO()) as lines:
        try:
            found = checkpoints.read(newest, checkpoints.TO_CONTINUE)
        except DamagedCheckpoint as error:
            said(error, newest)
            assert store.newest(checkpoints.TO_CONTINUE).step == 1
            assert lines.getvalue().count('\n') == 1 and 'passed over' in lines.getvalue()
            outcome = 'passed over'
        else:
            assert found == store.newest(checkpoints.TO_CONTINUE) and found.step == 2
            for name, kind in manifests.KINDS.items():
                assert type(found.manifest.get(name, kind())) is kind
            try:
                checkpoints.restore(run_of.session, run_of.saver, found)
                assert run_of.session.run(run_of.w).tolist() == [2, 2, 2]
                outcome = 'correct'
            except DamagedCheckpoint as error:
                outcome = said(error, newest)
        try:
            checkpoints.find(folder, '--ckpt_path')
        except ValueError as error:
            said(error, newest)
        store.prune(2)
        assert os.path.join(store.folder, 'step-00000001') in store.paths()
    return outcome


@contextlib.contextmanager
def logging_to(stream):
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)
    level, propagate = log.level, log.propagate
    log.setLevel('INFO')
    log.propagate = False
    try:
        yield stream
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def rewrite(path, change, sign=True):
    """Changes a manifest by `change(manifest)`. `signed`: its own digest is recomputed, so that the
    reader gets past it.
    """
    file_name = os.path.join(path, 'manifest.json')
    with open(file_name, encoding='utf-8') as file:
        manifest = json.load(file)
    changed = change(manifest)
    manifest = manifest if changed is None else changed[0]
    if sign:
        manifest['manifest_sha256'] = manifests.digest_of(manifest)
    with open(file_name, 'w', encoding='utf-8') as file:
        json.dump(manifest, file)


def resign(path):
    """Recomputes the sizes, sums and digest of a checkpoint for its present files."""

    def change(manifest):
        for name in manifest['files']:
            file = os.path.join(path, name)
            manifest['files'][name] = {
                'bytes': os.path.getsize(file),
                'sha256': manifests.digest_of_file(file),
            }

    rewrite(path, change)


def put(*keys_and_value):
    """put('files', 'x', 3): a change that sets manifest['files']['x'] to 3."""

    def change(manifest):
        for key in keys_and_value[:-2]:
            manifest = manifest[key]
        manifest[keys_and_value[-2]] = keys_and_value[-1]

    return change


DATA, INDEX, MANIFEST = 'model.data-00000-of-00001', 'model.index', 'manifest.json'
NESTED = functools.reduce(lambda inner, _: [inner], range(300), [])
ODD = [
    ('null', None),
    ('true', True),
    ('list', [1, 2]),
    ('object', {'a': 'b'}),
    ('text', 'x'),
    ('minus', -1),
    ('half', 1.5),
    ('nan', float('nan')),
    ('inf', float('inf')),
    ('huge', 10**400),
    ('nested', NESTED),
]


def checkpoint_cases():
    def case(kind, name, spoil, *outcomes):
        def run_it(folder):
            found = read_checkpoint(folder, spoil)
            assert not outcomes or found in outcomes, found
            return found

        return Case(kind, name, run_it)

    def spoilt(name, spoil, chance, sign=False):
        def change(path):
            with open(os.path.join(path, name), 'rb') as file:
                content = file.read()
            with open(os.path.join(path, name), 'wb') as file:
                file.write(spoil(content, chance))
            if sign:
                resign(path)

        return change

    for seed, (name, spoil) in enumerate(itertools.product((DATA, INDEX, MANIFEST), SPOILERS * 4)):
        yield case(
            'checkpoint file',
            f'{name[-8:]}-{spoil.__name__}-{seed}',
            spoilt(name, spoil, random.Random(4000 + seed)),
        )
    for seed, (name, spoil) in enumerate(itertools.product((DATA, INDEX), SPOILERS * 2)):
        yield case(
            'checkpoint file, sums made right',
            f'{name[-8:]}-{spoil.__name__}-{seed}',
            spoilt(name, spoil, random.Random(5000 + seed), sign=True),
        )

    def exchanged(path):
        os.rename(os.path.join(path, DATA), os.path.join(path, 'x'))
        os.rename(os.path.join(path, INDEX), os.path.join(path, DATA))
        os.rename(os.path.join(path, 'x'), os.path.join(path, INDEX))

    def older(path):
        shutil.rmtree(path)
        shutil.copytree(path[:-1] + '1', path)

    def a_file(path):
        shutil.rmtree(path)
        open(path, 'w').close()

    def a_link(path):
        os.rename(path, path + '.elsewhere')
        os.symlink(path + '.elsewhere', path)

    def folders(path):
        for name in os.listdir(path):
            os.remove(os.path.join(path, name))
            os.mkdir(os.path.join(path, name))

    def nothing(path):
        shutil.rmtree(path)
        os.mkdir(path)

    def one_more(path):
        shutil.copy(os.path.join(path, INDEX), os.path.join(path, 'one-more'))

    def exchanged_and_signed(path):
        exchanged(path)
        resign(path)

    for spoil, outcome in [
        (exchanged, 'passed over'),
        (exchanged_and_signed, 'refused'),
        (older, 'passed over'),
        (a_file, 'passed over'),
        (folders, 'passed over'),
        (nothing, 'passed over'),
        (a_link, 'correct'),
        (one_more, 'correct'),
    ]:
        yield case('checkpoint folder', spoil.__name__, spoil, outcome)

    def edited(name, change, *outcomes, **keywords):
        return case('manifest', name, lambda path: rewrite(path, change, **keywords), *outcomes)

    for key in ('format',) + tuple(manifests.KINDS):
        yield edited(
            'without ' + key,
            lambda manifest, key=key: [manifest.pop(key)] and None,
            'correct' if key in ('metrics', 'best', 'versions') else 'passed over',
        )
        for name, value in ODD:
            yield edited(f'{key} {name}', put(key, value))
    for name, value in ODD:
        yield edited(
            'all of it ' + name,
            lambda manifest, value=value: [value],
            'passed over',
            sign=isinstance(value, dict),
        )
        yield edited('facts ' + name, put('files', DATA, value), 'passed over')
        yield edited('sum ' + name, put('files', DATA, 'sha256', value), 'passed over')
        yield edited('bytes ' + name, put('files', DATA, 'bytes', value), 'passed over')
        yield edited('best by ' + name, put('metrics', 'valid_acc', value))
        yield edited('digest ' + name, put('manifest_sha256', value), 'passed over', sign=False)
    for name in (
        '../step-00000001/' + DATA,
        '/etc/passwd',
        '..',
        '.',
        '',
        'a/b',
        'NUL\0',
        '\ud800',
        'x' * 5000,
        'line\nline',
        '\x1b[2J',
        '~',
        'C:\\x',
    ):
        yield edited(
            f'file name {name[:20]!r}',
            put('files', name, {'bytes': 1, 'sha256': 'a\nb'}),
            'passed over',
        )
    for name, text in [
        ('deep lists', b'[' * 200000),
        ('deep objects', b'{"a":' * 100000),
        ('a long number', b'{"format": ' + b'1' * 100000 + b'}'),
        ('a far exponent', b'{"format": 1e999999}'),
        ('UTF-16', json.dumps({'format': 1}).encode('utf-16')),
        ('a mark in front', b'\xef\xbb\xbf{}'),
        ('half a letter', b'{"a": "\\ud8"}'),
        ('NUL', b'\0' * 100),
        ('twice the key', b'{"format": 1, "format": 2}'),
        ('two values', b'{} {}'),
        ('bad UTF-8', b'{"a": "\xff"}'),
    ]:

        def replaced(path, text=text):
            with open(os.path.join(path, MANIFEST), 'wb') as file:
                file.write(text)

        yield case('manifest', name, replaced, 'passed over')


# --- what a manifest says, when a run goes on from it ---------------------------------------------


@functools.lru_cache(None)
def stopped_run():
    """Options of a run that ended with a checkpoint of step 6, which holds the sums of two steps,
    and a built Trainer that may continue it.
    """
    _HELD.append(tempfile.TemporaryDirectory())
    settings = toys.options(_HELD[-1].name, steps=8, save_every='6', keep_checkpoints=1)
    with logging_to(io.StringIO()):
        with pytest.raises(KeyboardInterrupt):
            trainer_of(settings, StopAt(7)).fit()
        trainer = trainer_of(settings)
        with tf.Graph().as_default():
            trainer.build()
            trainer.runtime.open()
    return settings, trainer


def trainer_of(settings, *callbacks):
    dataset = data.load('mnist', settings.data_folder)
    measuring = [
        CenterMeasurement(dataset.train),
        Evaluation(dataset.valid),
        History(),
        Checkpoint(),
    ]
    return Trainer(settings, dataset, measuring + list(callbacks), devices.choose(settings))


def resume_cases():
    def case(name, change, *outcomes):
        def run_it(folder):
            settings, trainer = stopped_run()
            store = checkpoints.CheckpointStore(os.path.join(folder, 'ckpt'))
            shutil.copytree(os.path.join(settings.run_dir, 'ckpt'), store.folder)
            rewrite(store.paths()[-1], change)
            with logging_to(io.StringIO()) as lines:
                try:
                    found = rundir.checkpoint_to_continue(
                        'auto', store, settings.as_dict(), trainer.saving.facts['dataset']
                    )
                    if found is None:
                        return 'none left'
                    resuming.restore(trainer.runtime, trainer.callbacks, found)
                    outcome = 'passed over' if 'passed over' in lines.getvalue() else 'correct'
                    step = trainer.runtime.step
                    assert step == found.step and (outcome == 'correct') == (step == 6)
                except ValueError as error:
                    outcome = said(error, store.folder, '--')
            assert outcome in outcomes, outcome
            return outcome

        return Case('manifest at resume', name, run_it)

    yield case('as it was', lambda manifest: None, 'correct')
    for key in ('epoch', 'logs', 'totals', 'timing', 'callbacks', 'options', 'dataset'):
        for name, value in ODD:
            # Sums that are no numbers are as bad as none; an odd object elsewhere may be one to go
            # on from or not.
            odd_object = isinstance(value, dict) and key not in ('epoch', 'totals', 'timing')
            yield case(
                f'{key} {name}',
                put(key, value),
                *(('correct', 'refused') if odd_object else ('passed over',)),
            )
    for callback in ('CenterMeasurement', 'History'):
        for name, value in ODD:
            yield case(
                f'{callback} {name}',
                put('callbacks', callback, value),
                {
                    ('CenterMeasurement', 'list'): 'correct',
                    (callback, 'huge'): 'passed over',  # a whole number beyond a float
                }.get((callback, name), 'refused'),
            )
    yield case('rows of text', put('callbacks', 'History', 'rows', 'abc'), 'refused')
    yield case('rows of numbers', put('callbacks', 'History', 'rows', [1, 2]), 'refused')
    for seconds in (-1, float('nan'), float('inf')):
        yield case(f'{seconds} s', put('callbacks', 'History', 'seconds', seconds), 'refused')
    yield case('2^31 skipped steps', put('timing', 'skipped', 1 << 31), 'refused')
    yield case('a state of 128 bits', put('callbacks', 'Nobody', 1 << 127), 'correct')  # PCG64's
    yield case('6 measurements in 6 steps', put('epoch', 6), 'correct')
    yield case('7 measurements in 6 steps', put('epoch', 7), 'passed over')
    yield case('a callback that is not there', put('callbacks', 'Nobody', [1]), 'correct')
    yield case('other sums', put('totals', {'loss': 1.0}), 'refused')
    yield case('sums of no step', put('totals', 'steps', 0), 'refused')
    yield case('sums of no time', put('totals', 'seconds', 0.0), 'refused')
    for group, name, value in (
        ('totals', 'seconds', float('nan')),
        ('totals', 'loss', float('inf')),  # as JSON reads 1e400
        ('totals', 'loss', -float('inf')),
        ('totals', 'learning_rate', 10**400),  # beyond a float
        ('timing', 'seconds', float('nan')),
        ('timing', 'seconds', -5),
        ('timing', 'steps', float('inf')),
        ('timing', 'steps', 10**400),
    ):
        yield case(f'{name} of {value} in {group}', put(group, name, value), 'passed over')
    yield case('another seed', put('options', 'seed', 5), 'refused')
    yield case('a seed of text', put('options', 'seed', 'a\nb'), 'refused')
    yield case('a huge number of classes', put('dataset', 'num_classes', 10**400), 'passed over')
    yield case('another number of classes', put('dataset', 'num_classes', 11), 'refused')


CASES = [
    case
    for cases in (idx_cases(), npz_cases(), flag_cases(), checkpoint_cases(), resume_cases())
    for case in cases
]


@pytest.mark.parametrize('case', CASES, ids=['{}: {}'.format(*case[:2]) for case in CASES])
def test_bad_input_is_refused_clearly_or_read_rightly(case, tmp_path):
    try_case(case, tmp_path)


def test_there_are_hundreds_of_cases_of_every_kind():
    kinds = collections.Counter(case.kind for case in CASES)
    assert len(CASES) >= 300 and len({case[:2] for case in CASES}) == len(CASES)
    assert min(kinds.values()) >= 5, kinds


# --- the same as the user meets it ----------------------------------------------------------------


def _corrupt_images(settings):
    with open(os.path.join(settings.data_path, 'train-images-idx3-ubyte.gz'), 'wb') as file:
        file.write(zipped(struct.pack('>BBBB3I', 0, 0, 8, 3, *[(1 << 32) - 1] * 3)))


def _pickled(settings):
    Evil.folder = settings.data_path
    write(
        settings.data_path,
        {'mnist.npz': npz([(name + '.npy', npy(np.array([Evil()]), True)) for name in arrays()])},
    )


def _ends_in_one_line(arguments, capsys, word):
    assert run.main(arguments) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (
        out == ''
        and len(lines) == 1
        and lines[0].startswith('trainers.run: ')
        and word in lines[0]
        and 'Traceback' not in err
    )


@pytest.mark.parametrize(
    'spoil, word', [(_corrupt_images, 'train-images-idx3-ubyte.gz'), (_pickled, 'mnist.npz')]
)
def test_bad_data_through_the_command(tmp_path, capsys, spoil, word):
    settings = toys.options(tmp_path)
    spoil(settings)
    _ends_in_one_line(toys.flags_of(settings), capsys, word)
    assert sorted(os.listdir(str(tmp_path))) == ['data'] and Evil.MARK not in os.listdir(
        settings.data_path
    )


@pytest.mark.parametrize(
    'content, word',
    [
        (b'--model=a\0b', '--model'),
        (b'--steps=' + b'9' * 9000, '--steps'),
        (b'\xff' * 50, '--flagfile'),
        (b'--batch_size=\n', '--batch_size'),
    ],
)
def test_a_bad_flag_file_through_the_command(tmp_path, capsys, content, word):
    write(str(tmp_path), {'a.cfg': content})
    _ends_in_one_line([f'--flagfile={tmp_path / "a.cfg"}'], capsys, word)


def _history_of_a_number(path):
    rewrite(path, put('callbacks', 'History', 7))


def _weights_of_noise(path):
    with open(os.path.join(path, DATA), 'r+b') as file:
        file.write(b'\xff' * 4000)
    resign(path)


@pytest.mark.parametrize('spoil', [_history_of_a_number, _weights_of_noise])
def test_a_bad_checkpoint_through_the_command(tmp_path, capsys, spoil):
    """The run's only checkpoint is damaged but has a correct digest: nothing is trained, and no
    file of the run is touched.
    """
    settings, _ = stopped_run()
    shutil.copytree(settings.run_dir, str(tmp_path / 'run'))
    spoil(str(tmp_path / 'run' / 'ckpt' / 'step-00000006'))
    kept = sorted(os.listdir(str(tmp_path / 'run')))
    _ends_in_one_line(
        toys.flags_of(settings) + [f'--exp_save_dir={tmp_path / "run"}'],
        capsys,
        'step-00000006',
    )
    assert sorted(os.listdir(str(tmp_path / 'run'))) == kept


def _instead_of(path, kind):
    """Puts a FIFO without a writer, or a link to an endless device, in the place of a file."""
    if os.path.lexists(path):
        os.remove(path)
    os.mkfifo(path) if kind == 'fifo' else os.symlink('/dev/zero', path)


@pytest.fixture
def no_hang():
    def hung(signum, frame):
        raise Hang(f'still at it after {SECONDS} s')

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize('kind', ['fifo', 'device'])
@pytest.mark.parametrize(
    'name', ['train-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte', 'SHA256SUMS', 'mnist.npz', '']
)
def test_data_that_is_no_file_through_the_command(tmp_path, capsys, no_hang, name, kind):
    """Nothing waits for a writer or reads an endless device: one line names the file."""
    settings = toys.options(tmp_path)
    path = os.path.join(settings.data_path, name) if name else str(tmp_path / 'data-set')
    _instead_of(path, kind)
    flags = toys.flags_of(settings) + ([] if name else ['--data_path=' + path])
    _ends_in_one_line(flags, capsys, path)
    assert not os.path.exists(settings.run_dir)


@pytest.mark.parametrize('kind', ['fifo', 'device'])
def test_a_flag_file_or_callbacks_that_are_no_files(tmp_path, capsys, no_hang, kind):
    settings = toys.options(tmp_path)
    path = str(tmp_path / 'a.py')
    _instead_of(path, kind)
    _ends_in_one_line(['--flagfile=' + path], capsys, path)
    flags = toys.flags_of(settings) + [f'--callbacks={path}:made']
    _ends_in_one_line(flags, capsys, path)


@pytest.mark.parametrize('kind', ['fifo', 'device'])
@pytest.mark.parametrize('name', [MANIFEST, DATA, INDEX])
def test_files_of_a_run_that_are_no_files(tmp_path, capsys, no_hang, name, kind):
    """A checkpoint with such a file is none: the one before, of step 4, serves. The commands that
    are given it end in one line.
    """
    settings, _ = stopped_run()
    folder = str(tmp_path / 'run')
    shutil.copytree(settings.run_dir, folder)
    checkpoint = os.path.join(folder, 'ckpt', 'step-00000006')
    _instead_of(os.path.join(checkpoint, name), kind)
    assert export.main(['--ckpt_path=' + checkpoint]) == 2
    out, err = capsys.readouterr()
    assert out == '' and len(err.splitlines()) == 1 and checkpoint in err
    store = checkpoints.CheckpointStore(os.path.join(folder, 'ckpt'))
    with logging_to(io.StringIO()) as lines:
        assert store.newest(checkpoints.TO_CONTINUE).step == 4
    assert lines.getvalue().count('\n') == 1 and checkpoint in lines.getvalue()


def main():
    """Tries all cases and prints a table of the outcomes. Exit status 1 if one is not the expected
    one.
    """
    table, wrong = collections.OrderedDict(), []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = try_case(case, folder)
            except Exception as error:  # noqa: BLE001 - counted and shown
                outcome = 'wrong'
                wrong.append(
                    f'{case.kind}: {case.name}: {type(error).__name__}: {str(error)[:300]}'
                )
        table.setdefault(case.kind, collections.Counter())[outcome] += 1
    columns = ('refused', 'passed over', 'correct', 'wrong')
    print(
        '| kind | cases | refused in one line | passed over, the one before serves | read '
        'rightly | wrong |'
    )
    print('|---|---|---|---|---|---|')
    for kind, counts in list(table.items()) + [('all', sum(table.values(), collections.Counter()))]:
        print(
            f'| {kind} | {sum(counts.values())} | '
            f'{" | ".join(str(counts[name]) for name in columns)} |'
        )
    print('\n'.join(wrong))
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
