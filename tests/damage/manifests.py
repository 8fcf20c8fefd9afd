"""Damage to manifest.json, with a digest that is made right again and without."""

import functools
import json
import os

from gitloss import files
from trainers.checkpoints import manifest as manifests

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


def rewrite(path, change, sign=True):
    """Changes a manifest by `change(manifest)`. `sign`: its own digest is recomputed, so that the
    reader gets past it.
    """
    file_name = os.path.join(path, MANIFEST)
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
                'sha256': files.digest(file),
            }

    rewrite(path, change)


def put(*keys_and_value):
    """put('files', 'x', 3): a change that sets manifest['files']['x'] to 3."""

    def change(manifest):
        for key in keys_and_value[:-2]:
            manifest = manifest[key]
        manifest[keys_and_value[-2]] = keys_and_value[-1]

    return change


def _edited(name, change, *outcomes, **keywords):
    return name, lambda path: rewrite(path, change, **keywords), outcomes


def damages():
    """(name, damage(path of a checkpoint), its outcomes; none: any)."""
    for key in ('format',) + tuple(manifests.KINDS):
        yield _edited(
            'without ' + key,
            lambda manifest, key=key: [manifest.pop(key)] and None,
            'correct' if key in ('metrics', 'best', 'versions') else 'passed over',
        )
        for name, value in ODD:
            yield _edited(f'{key} {name}', put(key, value))
    for name, value in ODD:
        yield _edited(
            'all of it ' + name,
            lambda manifest, value=value: [value],
            'passed over',
            sign=isinstance(value, dict),
        )
        yield _edited('facts ' + name, put('files', DATA, value), 'passed over')
        yield _edited('sum ' + name, put('files', DATA, 'sha256', value), 'passed over')
        yield _edited('bytes ' + name, put('files', DATA, 'bytes', value), 'passed over')
        yield _edited('best by ' + name, put('metrics', 'valid_acc', value))
        yield _edited('digest ' + name, put('manifest_sha256', value), 'passed over', sign=False)
    yield from _names()
    yield from _texts()


def _names():
    """Names of files that lead elsewhere or are none."""
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
        yield _edited(
            f'file name {name[:20]!r}',
            put('files', name, {'bytes': 1, 'sha256': 'a\nb'}),
            'passed over',
        )


def _texts():
    """Texts that are no manifest."""
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

        yield name, replaced, ('passed over',)
