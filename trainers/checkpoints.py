"""Checkpoints that are whole or not there.

A checkpoint is a folder `step-00001000` with TensorFlow's own two files and `manifest.json`: step, metrics, the state of the callbacks,
what is needed to build the model again, and the SHA-256 of every file. It is written under a temporary name, flushed to the
disk and renamed: a reader sees all of it or nothing. TensorFlow 1.15 and 2.x read each other's.
"""
from __future__ import annotations

import collections
import hashlib
import json
import logging
import os
import re
import shutil

from gitloss.backend import tf

log = logging.getLogger('gitloss')

Checkpoint = collections.namedtuple('Checkpoint', 'path step manifest')
_PREFIX = 'model'
_FORMAT = 1
_NAME = re.compile(r'step-(\d{8,})$')


class DamagedCheckpoint(ValueError):
    """A checkpoint folder that is not what its manifest says."""


def _digest(path):
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def _manifest_digest(manifest):
    bare = {key: value for key, value in manifest.items() if key != 'manifest_sha256'}
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode('utf-8')).hexdigest()


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path):
    """Reads and verifies one checkpoint folder.

    Returns:
      A Checkpoint.

    Raises:
      DamagedCheckpoint: a file is missing, truncated or altered, or the manifest is.
    """
    try:
        with open(os.path.join(path, 'manifest.json'), encoding='utf-8') as file:
            manifest = json.load(file)
        if manifest['format'] != _FORMAT:
            raise DamagedCheckpoint('%s: expected checkpoint format %d. Received: %r' % (path, _FORMAT, manifest['format']))
        if manifest['manifest_sha256'] != _manifest_digest(manifest):
            raise DamagedCheckpoint('%s: expected a manifest with the SHA-256 it carries. Received: an altered one' % path)
        for name, facts in manifest['files'].items():
            if os.path.basename(name) != name:
                raise DamagedCheckpoint('%s: expected plain file names in the manifest. Received: %r' % (path, name))
            file = os.path.join(path, name)
            if os.path.getsize(file) != facts['bytes'] or _digest(file) != facts['sha256']:
                raise DamagedCheckpoint('%s: expected %d bytes with SHA-256 %s. Received: a truncated or altered file'
                                        % (file, facts['bytes'], facts['sha256']))
        return Checkpoint(path, int(manifest['step']), manifest)
    except DamagedCheckpoint:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedCheckpoint('%s: expected a complete checkpoint. Received: %s'
                                % (path, str(error).replace('\n', ' ') or type(error).__name__))


def find(path, flag):
    """The checkpoint at `path`: a checkpoint's folder itself, or the best (else the newest) one of a run's folder or its ckpt folder.

    Raises:
      ValueError: there is none, or it is damaged.
    """
    if os.path.isfile(os.path.join(path, 'manifest.json')):
        return read(path)
    for folder in (os.path.join(path, 'ckpt'), path):
        store = CheckpointStore(folder)
        found = store.best() or (store.paths() or [None])[-1]
        if found:
            return read(found)
    raise ValueError('%s: expected a checkpoint, or a folder with checkpoints. Received: %r' % (flag, path))


def variables(checkpoint):
    """[(name, shape), ...] of what a checkpoint holds."""
    return tf.train.list_variables(os.path.join(checkpoint.path, _PREFIX))


def restore(session, saver, checkpoint):
    """Loads a verified checkpoint's values into the session."""
    with session.graph.as_default():
        saver.restore(session, os.path.join(checkpoint.path, _PREFIX))


class CheckpointStore:
    """The checkpoints of one run.

    Args:
      folder: the `ckpt` folder of the run; made at the first save.
      keep: how many of the newest stay.
      best: the metric whose largest value keeps a checkpoint besides.
    """

    def __init__(self, folder, keep=3, best='valid_acc'):
        self.folder, self._keep, self._best = folder, keep, best

    def save(self, session, saver, step, contents):
        """Writes the checkpoint of `step` and prunes old ones. `contents`: JSON values for the manifest.

        Returns:
          Its path.

        Raises:
          OSError: it could not be written, for a full disk perhaps; no trace of it is left.
        """
        path = os.path.join(self.folder, 'step-%08d' % step)
        temporary = path + '.tmp'
        os.makedirs(self.folder, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed while writing
        try:
            self._write(temporary, session, saver, step, contents)
            if os.path.exists(path):  # the same step again: the old one goes only when the new one is whole
                shutil.rmtree(path)
            os.rename(temporary, path)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise OSError('%s: %s' % (path, (getattr(error, 'message', None) or str(error)).splitlines()[0]))
        _sync(self.folder)
        self._prune()
        return path

    def _write(self, temporary, session, saver, step, contents):
        os.mkdir(temporary)
        with session.graph.as_default():  # a saver refuses to work where TensorFlow 2 is eager
            saver.save(session, os.path.join(temporary, _PREFIX), write_meta_graph=False, write_state=False)
        files = sorted(os.listdir(temporary))
        manifest = dict(contents, format=_FORMAT, step=step, files={
            name: {'bytes': os.path.getsize(os.path.join(temporary, name)), 'sha256': _digest(os.path.join(temporary, name))}
            for name in files})
        manifest['manifest_sha256'] = _manifest_digest(manifest)
        with open(os.path.join(temporary, 'manifest.json'), 'w', encoding='utf-8') as file:
            json.dump(manifest, file, indent=1)
        for name in files + ['manifest.json', '.']:
            _sync(os.path.join(temporary, name))

    def paths(self):
        """Folders of all checkpoints, oldest first, not verified."""
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        found = sorted((int(_NAME.match(name).group(1)), name) for name in names if _NAME.match(name))
        return [os.path.join(self.folder, name) for _, name in found]

    def newest(self):
        """The newest whole checkpoint, or None; a damaged one is passed over with a warning."""
        for path in reversed(self.paths()):
            try:
                return read(path)
            except DamagedCheckpoint as error:
                log.warning('checkpoint passed over: %s', error)
        return None

    def _metric(self, path):
        try:
            with open(os.path.join(path, 'manifest.json'), encoding='utf-8') as file:
                return float(json.load(file)['metrics'][self._best])
        except (OSError, ValueError, KeyError, TypeError):
            return float('-inf')

    def best(self):
        """Folder of the checkpoint with the largest metric (the earliest of equals), or None."""
        paths = self.paths()
        top = max(paths, key=self._metric) if paths else None
        return top if top is not None and self._metric(top) > float('-inf') else None

    def _prune(self):
        keep = set(self.paths()[-self._keep:] + [self.best()])
        for path in self.paths():
            if path not in keep:
                shutil.rmtree(path)
