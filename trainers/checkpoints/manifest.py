"""What a checkpoint's folder says of itself, in `manifest.json`: written with it, and verified
before anything is believed.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import re

from gitloss.errors import DamagedCheckpoint

Checkpoint = collections.namedtuple('Checkpoint', 'path step manifest')
FILE, PREFIX = 'manifest.json', 'model'  # TensorFlow's own files are model.index and model.data-...
FOLDER = re.compile(r'step-(\d{8,})(\.old)?$')
_FORMAT = 1
_PLAIN = (int, float)
# What a manifest holds, and what must be there to continue a run from it.
KINDS = {
    'step': int,
    'epoch': int,
    'files': dict,
    'options': dict,
    'dataset': dict,
    'metrics': dict,
    'best': dict,
    'versions': dict,
    'logs': dict,
    'totals': dict,
    'timing': dict,
    'callbacks': dict,
}
TO_CONTINUE = ('epoch', 'options', 'dataset', 'logs', 'totals', 'timing', 'callbacks')


def digest_of_file(path):
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def digest_of(manifest):
    bare = {key: value for key, value in manifest.items() if key != 'manifest_sha256'}
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode('utf-8')).hexdigest()


def _check_kinds(path, manifest, needed):
    missing = sorted({'step', 'files'}.union(needed) - set(manifest))
    if missing:
        raise DamagedCheckpoint(
            '{}: expected a manifest with {}. Received: one without'.format(
                path, ', '.join(missing)
            )
        )
    for name, kind in KINDS.items():
        value = manifest.get(name, kind())
        if type(value) is not kind or (kind is int and value < 0):
            raise DamagedCheckpoint(
                '{}: expected {} in the manifest to be {}. Received: {}'.format(
                    path,
                    name,
                    'a number from 0 on' if kind is int else 'an object',
                    json.dumps(value)[:80],
                )
            )
    for group in ('totals', 'timing', 'metrics'):
        wrong = sorted(
            name for name, value in manifest.get(group, {}).items() if type(value) not in _PLAIN
        )
        if wrong:
            raise DamagedCheckpoint(
                '{}: expected numbers in {} of the manifest. Received: something else in {}'.format(
                    path, group, ', '.join(wrong)[:80]
                )
            )
    named = FOLDER.match(os.path.basename(path))
    if named and int(named.group(1)) != manifest['step']:
        raise DamagedCheckpoint(
            '%s: expected the checkpoint of the step in its name. Received: the one of step %d'
            % (path, manifest['step'])
        )


def read(path, needed=()):
    """Reads and verifies one checkpoint folder. `needed`: what the manifest must hold beside step
    and files.

    Returns:
      A Checkpoint.

    Raises:
      DamagedCheckpoint: a file is missing, truncated or altered, or the manifest is.
    """
    try:
        with open(os.path.join(path, FILE), encoding='utf-8') as file:
            manifest = json.load(file)
        if manifest['format'] != _FORMAT:
            raise DamagedCheckpoint(
                '%s: expected checkpoint format %d. Received: %r'
                % (path, _FORMAT, manifest['format'])
            )
        if manifest['manifest_sha256'] != digest_of(manifest):
            raise DamagedCheckpoint(
                f'{path}: expected a manifest with the SHA-256 it carries. Received: an altered one'
            )
        _check_kinds(path, manifest, needed)
        for name, facts in manifest['files'].items():
            if os.path.basename(name) != name:
                raise DamagedCheckpoint(
                    f'{path}: expected plain file names in the manifest. Received: {name!r}'
                )
            file = os.path.join(path, name)
            if os.path.getsize(file) != facts['bytes'] or digest_of_file(file) != facts['sha256']:
                raise DamagedCheckpoint(
                    '%s: expected %d bytes with SHA-256 %s. Received: a truncated or altered file'
                    % (file, facts['bytes'], facts['sha256'])
                )
        if PREFIX + '.index' not in manifest['files']:
            raise DamagedCheckpoint(
                f'{path}: expected {PREFIX}.index among the files of the manifest. Received: none'
            )
        return Checkpoint(path, manifest['step'], manifest)
    except DamagedCheckpoint:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise DamagedCheckpoint(
            f'{path}: expected a complete checkpoint. Received: {str(error) or type(error).__name__}'
        )


def judgement(path):
    """(metrics, best) of a manifest that is not verified, {} each where it cannot be read: the
    values it is judged by, and the arguments of declaration.best beside them.
    """
    try:
        with open(os.path.join(path, FILE), encoding='utf-8') as file:
            manifest = json.load(file)
        return dict(manifest['metrics']), dict(manifest['best'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}, {}


def write(path, step, contents):
    """Adds the manifest to the folder `path` of a checkpoint whose other files are there.
    `contents`: JSON values.
    """
    names = sorted(os.listdir(path))
    manifest = dict(
        contents,
        format=_FORMAT,
        step=step,
        files={
            name: {
                'bytes': os.path.getsize(os.path.join(path, name)),
                'sha256': digest_of_file(os.path.join(path, name)),
            }
            for name in names
        },
    )
    manifest['manifest_sha256'] = digest_of(manifest)
    with open(os.path.join(path, FILE), 'w', encoding='utf-8') as file:
        json.dump(manifest, file, indent=1)
