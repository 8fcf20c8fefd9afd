"""manifest.json, what a checkpoint says of itself: written with it, verified before it is used."""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any, Mapping, NamedTuple, Sequence

from gitloss.errors import DamagedCheckpoint

FILE, PREFIX = 'manifest.json', 'model'  # TensorFlow's own files are model.index and model.data-...
FOLDER = re.compile(r'step-(\d{8,})(\.old)?$')
_FORMAT = 1
_PLAIN = (int, float)
# What a manifest holds, and what must be there to continue a run from it.
KINDS: dict[str, Any] = {
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


class Checkpoint(NamedTuple):
    """A verified checkpoint: its folder, its step, what its manifest says."""

    path: str
    step: int
    manifest: Mapping[str, Any]


def digest_of_file(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def digest_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without the digest it carries."""
    bare = {key: value for key, value in manifest.items() if key != 'manifest_sha256'}
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode('utf-8')).hexdigest()


def _check_kinds(path: str, manifest: Mapping[str, Any], needed: Sequence[str]) -> None:
    missing = sorted({'step', 'files'}.union(needed) - set(manifest))
    if missing:
        raise DamagedCheckpoint(
            f'{path}: expected a manifest with {", ".join(missing)}. Received: one without'
        )
    for name, kind in KINDS.items():
        value = manifest.get(name, kind())
        if type(value) is not kind or (kind is int and value < 0):
            expected = 'a number from 0 on' if kind is int else 'an object'
            raise DamagedCheckpoint(
                f'{path}: expected {name} in the manifest to be {expected}. '
                f'Received: {json.dumps(value)[:80]}'
            )
    for group in ('totals', 'timing', 'metrics'):
        wrong = sorted(
            name for name, value in manifest.get(group, {}).items() if type(value) not in _PLAIN
        )
        if wrong:
            raise DamagedCheckpoint(
                f'{path}: expected numbers in {group} of the manifest. '
                f'Received: something else in {", ".join(wrong)[:80]}'
            )
    named = FOLDER.match(os.path.basename(path))
    if named and int(named.group(1)) != manifest['step']:
        raise DamagedCheckpoint(
            f'{path}: expected the checkpoint of the step in its name. '
            f'Received: the one of step {manifest["step"]}'
        )


def _check_files(path: str, files: Mapping[str, Any]) -> None:
    for name, facts in files.items():
        if os.path.basename(name) != name:
            raise DamagedCheckpoint(
                f'{path}: expected plain file names in the manifest. Received: {name!r}'
            )
        file = os.path.join(path, name)
        if os.path.getsize(file) != facts['bytes'] or digest_of_file(file) != facts['sha256']:
            raise DamagedCheckpoint(
                f'{file}: expected {facts["bytes"]:d} bytes with SHA-256 {facts["sha256"]}. '
                'Received: a truncated or altered file'
            )
    if PREFIX + '.index' not in files:
        raise DamagedCheckpoint(
            f'{path}: expected {PREFIX}.index among the files of the manifest. Received: none'
        )


def read(path: str, needed: Sequence[str] = ()) -> Checkpoint:
    """Reads and verifies one checkpoint folder.

    Args:
      needed: what the manifest must hold beside step and files.

    Raises:
      DamagedCheckpoint: a file is missing, truncated or altered, or the manifest is.
    """
    try:
        with open(os.path.join(path, FILE), encoding='utf-8') as file:
            manifest = json.load(file)
        if manifest['format'] != _FORMAT:
            raise DamagedCheckpoint(
                f'{path}: expected checkpoint format {_FORMAT}. Received: {manifest["format"]!r}'
            )
        if manifest['manifest_sha256'] != digest_of(manifest):
            raise DamagedCheckpoint(
                f'{path}: expected a manifest with the SHA-256 it carries. Received: an altered one'
            )
        _check_kinds(path, manifest, needed)
        _check_files(path, manifest['files'])
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
            f'{path}: expected a complete checkpoint. '
            f'Received: {str(error) or type(error).__name__}'
        )


def judgement(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(metrics, best) of a manifest that is not verified, {} each where it cannot be read: the
    values it is judged by, and the arguments of declaration.best beside them.
    """
    try:
        with open(os.path.join(path, FILE), encoding='utf-8') as file:
            manifest = json.load(file)
        return dict(manifest['metrics']), dict(manifest['best'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}, {}


def write(path: str, step: int, contents: Mapping[str, Any]) -> None:
    """Adds the manifest to the folder of a checkpoint whose other files are there.

    Args:
      contents: JSON values.
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
