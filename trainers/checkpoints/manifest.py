"""manifest.json describes a checkpoint: written with it, verified before the checkpoint is used."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
import re
from typing import Any, Mapping, NamedTuple, Sequence

from gitloss import files
from gitloss.errors import DamagedCheckpoint

FILE, PREFIX = 'manifest.json', 'model'  # TensorFlow's own files are model.index and model.data-...
FOLDER = re.compile(r'step-([0-9]{8,})(\.old)?')
_FORMAT = 1
# The entries of a manifest, and those that are needed to resume a run from it.
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
    """A verified checkpoint: its folder, its step, its manifest.

    As long as it exists, its `pin` keeps the folder from being pruned.
    """

    path: str
    step: int
    manifest: Mapping[str, Any]
    pin: Any = None  # an open files.Folder


def digest_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest, without the digest in it."""
    bare = {key: value for key, value in manifest.items() if key != 'manifest_sha256'}
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode('utf-8')).hexdigest()


def _whole(text: str) -> int:
    """A whole number of the manifest. One beyond a float would fail later, where no line names the
    checkpoint.
    """
    if math.isinf(float(text)):
        raise ValueError(f'the whole number {text[:20]}..., of {len(text)} digits')
    return int(text)


def _load(path: str) -> Any:
    return json.loads(files.read(os.path.join(path, FILE)), parse_int=_whole)


def _check(fits: Any, path: str, expected: str, received: str) -> None:
    if not fits:
        raise DamagedCheckpoint(f'{path}: expected {expected}. Received: {received}')


def _check_kinds(path: str, manifest: Mapping[str, Any], needed: Sequence[str]) -> None:
    missing = ', '.join(sorted({'step', 'files'}.union(needed) - set(manifest)))
    _check(not missing, path, f'a manifest with {missing}', 'one without')
    for name, kind in KINDS.items():
        value = manifest.get(name, kind())
        expected = 'a number from 0 on' if kind is int else 'an object'
        _check(
            type(value) is kind and (kind is dict or value >= 0),
            path,
            f'{name} in the manifest to be {expected}',
            json.dumps(value)[:80],
        )
    _check(
        manifest.get('epoch', 0) <= manifest['step'],
        path,
        'at most one measurement a step',
        f'{manifest.get("epoch")} in {manifest["step"]} steps',
    )
    named = FOLDER.fullmatch(os.path.basename(path))
    _check(
        not named or int(named.group(1)) == manifest['step'],
        path,
        'the checkpoint of the step in its name',
        f'the one of step {manifest["step"]}',
    )


def _check_numbers(path: str, manifest: Mapping[str, Any]) -> None:
    for group in ('totals', 'timing', 'metrics'):
        least = 0 if group == 'timing' else -math.inf
        wrong = sorted(
            name
            for name, value in manifest.get(group, {}).items()
            if type(value) not in (int, float) or not math.isfinite(value) or value < least
        )
        _check(
            not wrong,
            path,
            f'finite numbers{" from 0 on" * (least == 0)} in {group} of the manifest',
            f'something else in {", ".join(wrong)[:80]}',
        )


def _check_files(path: str, listed: Mapping[str, Any], whole: bool) -> None:
    index = PREFIX + '.index'
    for name, facts in listed.items():
        _check(
            os.path.basename(name) == name,
            path,
            'plain file names in the manifest',
            repr(name),
        )
        file, size, digest = os.path.join(path, name), facts['bytes'], facts['sha256']
        is_hashed = whole or name == index
        _check(
            os.path.getsize(file) == size and (not is_hashed or files.digest(file) == digest),
            file,
            f'{size:d} bytes with SHA-256 {digest}',
            'a truncated or altered file',
        )
    _check(index in listed, path, f'{index} among the files of the manifest', 'none')


def read(path: str, needed: Sequence[str] = (), whole: bool = True) -> Checkpoint:
    """Reads and verifies one checkpoint folder.

    Args:
      needed: entries that the manifest must have besides step and files.
      whole: compare all files with their SHA-256. False: only TensorFlow's index, which has a
        CRC-32C of each tensor, with which TensorFlow compares what it reads; of others the sizes.

    Raises:
      DamagedCheckpoint: a file or the manifest is missing, truncated or altered.
    """
    try:
        manifest = _load(path)
        _check(
            manifest['format'] == _FORMAT,
            path,
            f'checkpoint format {_FORMAT}',
            repr(manifest['format']),
        )
        is_whole = manifest['manifest_sha256'] == digest_of(manifest)
        _check(is_whole, path, 'a manifest with the SHA-256 it carries', 'an altered one')
        _check_kinds(path, manifest, needed)
        _check_numbers(path, manifest)
        _check_files(path, manifest['files'], whole)
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
    """(metrics, best) of a manifest, not verified: the values for the choice of the best
    checkpoint, and the arguments of declaration.best besides. {} each if it cannot be read.
    """
    try:
        manifest = _load(path)
        return dict(manifest['metrics']), dict(manifest['best'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}, {}


def write(path: str, step: int, contents: Mapping[str, Any]) -> None:
    """Adds the manifest to the folder of a checkpoint with all its other files.

    Args:
      contents: JSON values.
    """
    manifest = dict(
        contents,
        format=_FORMAT,
        step=step,
        files={
            name: {
                'bytes': os.path.getsize(os.path.join(path, name)),
                'sha256': files.digest(os.path.join(path, name)),
            }
            for name in sorted(os.listdir(path))
        },
    )
    manifest['manifest_sha256'] = digest_of(manifest)
    pathlib.Path(path, FILE).write_text(json.dumps(manifest, indent=1), 'utf-8')
