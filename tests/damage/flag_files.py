"""Mistakes in flag files, one by one and by spoilt bytes."""

import contextlib
import io
import os
import random

import toys
from damage.cases import SPOILERS, Case, confined, expecting, said, write
from trainers import options

REFUSED = [
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
ACCEPTED = [
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


def _parse(folder, files, arguments=('--flagfile=a.cfg',)):
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


def _case(name, files, outcome, arguments=('--flagfile=a.cfg',)):
    return expecting('flag file', name, lambda folder: _parse(folder, files, arguments), outcome)


def cases():
    for number, line in enumerate(REFUSED):
        beginning = line[:20].decode('ascii', 'replace').replace('\0', 'NUL')
        yield _case(f'{number} {beginning}', {'a.cfg': line}, 'refused')
    for number, content in enumerate(ACCEPTED):
        yield _case(f'good {number}', {'a.cfg': content}, 'correct')
    yield _case(
        'two that include each other',
        {'a.cfg': b'--flagfile=b.cfg\n--steps=5', 'b.cfg': b'--flagfile=a.cfg'},
        'correct',
    )
    chain = {f'{n}': b'--flagfile=%d' % (n + 1) for n in range(1, 2000)}
    yield _case('a chain of 2000', dict({'a.cfg': b'--flagfile=1'}, **chain), 'refused')
    yield _case(
        'half on the command line',
        {'a.cfg': b'--steps=5'},
        'refused',
        ('--flagfile=a.cfg', '--step'),
    )
    good = b'\n'.join(flag.encode() for flag in toys.flags_of(options.Options())) + b'\n'
    for seed, spoil in enumerate(SPOILERS * 7):
        content = spoil(good, random.Random(3000 + seed))
        yield Case(
            'flag file, spoilt bytes',
            f'{spoil.__name__}-{seed}',
            lambda folder, content=content: _parse(folder, {'a.cfg': content}),
        )
