"""Checkpoints that are whole or not there.

A checkpoint is a folder `step-00001000` with TensorFlow's own two files and `manifest.json`: step,
metrics, the state of the callbacks, what is needed to build the model again, and the SHA-256 of
every file. It is written under a temporary name, flushed to the
disk and renamed: a reader sees all of it or nothing. TensorFlow 1.15 and 2.x read each other's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil

from gitloss.backend import tf
from gitloss.errors import DamagedCheckpoint, log, reason
from gitloss.metrics import declaration
from trainers.checkpoints import manifest
from trainers.checkpoints.manifest import read

_ADAM_SCALAR = re.compile(r'.*/(beta[12]_power)$')
_LOSS_SCALING = {
    'loss_scale',
    'current_loss_scale',
    'good_steps',
    'bad_steps',
}  # of the NPU's adapter and of TensorFlow


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find(path, flag):
    """The checkpoint at `path`: a checkpoint's folder itself, or the best (else the newest) one of
    a run's folder or its ckpt folder.

    Raises:
      ValueError: there is none, or it is damaged.
    """
    if os.path.isfile(os.path.join(path, manifest.FILE)):
        return read(path, ('options', 'dataset'))
    for folder in (os.path.join(path, 'ckpt'), path):
        store = CheckpointStore(folder)
        found = store.best() or (store.paths() or [None])[-1]
        if found:
            return read(found, ('options', 'dataset'))
    raise ValueError(
        f'{flag}: expected a checkpoint, or a folder with checkpoints. Received: {path!r}'
    )


def variables(checkpoint):
    """[(name, shape), ...] of what a checkpoint holds."""
    with _readable(checkpoint):
        return tf.train.list_variables(os.path.join(checkpoint.path, manifest.PREFIX))


def restore(session, saver, checkpoint):
    """Loads a verified checkpoint's values into the session."""
    with session.graph.as_default(), _readable(checkpoint):
        saver.restore(session, os.path.join(checkpoint.path, manifest.PREFIX))


@contextlib.contextmanager
def _readable(checkpoint):
    try:
        yield
    except (tf.errors.OpError, ValueError) as error:  # ValueError: a saver that finds no file
        raise DamagedCheckpoint(
            f'{checkpoint.path}: expected a checkpoint of this model. Received: {reason(error)}'
        )


class Saver:
    """tf.train.Saver with names that do not tell how the training ran, so that a checkpoint goes
    from any device to any other.

    Loss scaling builds Adam's scalars inside a conditional, whose name they then bear: they are
    saved under their plain names. What it adds begins anew where a checkpoint has none.
    """

    def __init__(self, variables):
        named = {
            _ADAM_SCALAR.sub(r'\1', variable.name.split(':')[0]): variable for variable in variables
        }
        self._scaling = _LOSS_SCALING & set(named)
        self._saver = self._lasting = tf.train.Saver(named, max_to_keep=None)
        self.save = self._saver.save
        if self._scaling:
            self._lasting = tf.train.Saver(
                {name: variable for name, variable in named.items() if name not in self._scaling}
            )

    def restore(self, session, path):
        anew = self._scaling - {name for name, _ in tf.train.list_variables(path)}
        if anew:
            log.info('no %s in the checkpoint: loss scaling begins anew', ', '.join(sorted(anew)))
        (self._lasting if anew else self._saver).restore(session, path)


class CheckpointStore:
    """The checkpoints of one run.

    Args:
      folder: the `ckpt` folder of the run; made at the first save.
      keep: how many of the newest stay. The best one, by the metric in the manifests, stays too.
    """

    def __init__(self, folder, keep=3):
        self.folder, self._keep = folder, keep

    def save(self, session, saver, step, contents):
        """Writes the checkpoint of `step` and prunes old ones. `contents`: JSON values for the
        manifest.

        Returns:
          Its path.

        Raises:
          OSError: it could not be written, for a full disk perhaps; no trace of it is left.
        """
        path = os.path.join(self.folder, 'step-%08d' % step)
        os.makedirs(self.folder, exist_ok=True)
        for name in os.listdir(self.folder):
            if name.endswith('.tmp'):  # left by a run that was killed while writing
                shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)
        self._replace(path, session, saver, step, contents)
        self._prune(step)
        return path

    def save_aside(self, path, session, saver, step, contents):
        """The same into a folder of its own, which is no part of the series: never pruned, never
        continued from.

        Raises:
          ValueError: there is something else than a checkpoint at `path`.
          OSError: it could not be written.
        """
        path = os.path.abspath(path)
        names = os.listdir(path) if os.path.isdir(path) else []
        if os.path.lexists(path) and not (
            manifest.FILE in names
            and all(name.startswith((manifest.FILE, manifest.PREFIX + '.')) for name in names)
        ):
            raise ValueError(
                f'{path}: expected the name of a new folder, or of a checkpoint to replace. Received: something else is there'
            )
        os.makedirs(os.path.dirname(path), exist_ok=True)
        mark = '.gitloss'  # a folder "best.old" is the user's
        shutil.rmtree(path + mark + '.tmp', ignore_errors=True)
        self._replace(path, session, saver, step, contents, mark)
        return path

    def _replace(self, path, session, saver, step, contents, mark=''):
        temporary, old = path + mark + '.tmp', path + mark + '.old'
        try:
            self._write(temporary, session, saver, step, contents)
            if os.path.exists(
                path
            ):  # the same step again: the old one counts until the new one is in its place
                shutil.rmtree(old, ignore_errors=True)
                os.rename(path, old)
            os.rename(temporary, path)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise OSError(f'{path}: {reason(error)}')
        _sync(os.path.dirname(path))
        shutil.rmtree(old, ignore_errors=True)

    def _write(self, temporary, session, saver, step, contents):
        os.mkdir(temporary)
        with session.graph.as_default():  # a saver refuses to work where TensorFlow 2 is eager
            saver.save(
                session,
                os.path.join(temporary, manifest.PREFIX),
                write_meta_graph=False,
                write_state=False,
            )
        manifest.write(temporary, step, contents)
        for name in os.listdir(temporary) + ['.']:
            _sync(os.path.join(temporary, name))

    def paths(self):
        """Folders of all checkpoints, oldest first, not verified."""
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        found = sorted(
            (int(match.group(1)), not match.group(2), match.group(0))
            for match in map(manifest.FOLDER.match, names)
            if match
        )
        return [os.path.join(self.folder, name) for _, _, name in found]

    def newest(self, needed=()):
        """The newest whole checkpoint, or None; one that is damaged or lacks what is `needed` is
        passed over with a warning.
        """
        for path in reversed(self.paths()):
            try:
                return read(path, needed)
            except DamagedCheckpoint as error:
                log.warning('checkpoint passed over: %s', error)
        return None

    def best(self):
        """Folder of the best checkpoint by the metric that the run chooses by, or None.

        The newest manifest names the metric. Of equals the earliest is the best.
        """
        paths = self.paths()
        judged = [manifest.judgement(path) for path in paths]
        choice = next((best for _, best in reversed(judged) if best), {})
        place = declaration.best(
            [metrics for metrics, _ in judged],
            str(choice.get('name')),
            choice.get('higher_is_better'),
        )
        return None if place is None else paths[place]

    def _prune(self, step):
        """Later ones than that of `step`, just written, are damaged ones that the run passed over:
        they do not count.
        """
        paths = self.paths()
        counting = [
            path
            for path in paths
            if int(manifest.FOLDER.match(os.path.basename(path)).group(1)) <= step
        ]
        keep = set(counting[-self._keep :] + [self.best()])
        for path in counting:
            if path not in keep:
                try:
                    shutil.rmtree(path)
                except OSError as error:
                    log.warning('an old checkpoint stays: %s', error)
