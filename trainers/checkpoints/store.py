"""Checkpoints that are whole or not there.

A checkpoint is a folder `step-00001000` with TensorFlow's own two files and `manifest.json`: step,
metrics, the state of the callbacks, what is needed to build the model again, and the SHA-256 of
every file. It is written under a temporary name, flushed to the disk and renamed: a reader sees all
of it or nothing. TensorFlow 1.15 and 2.x read each other's.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import Any, Mapping, Sequence

from gitloss.backend import tf
from gitloss.errors import DamagedCheckpoint, log, reason
from gitloss.metrics import declaration
from trainers.checkpoints import manifest
from trainers.checkpoints.manifest import Checkpoint, read

_ADAM_SCALAR = re.compile(r'.*/(beta[12]_power)$')
# Variables of the NPU's adapter and of TensorFlow.
_LOSS_SCALING = {'loss_scale', 'current_loss_scale', 'good_steps', 'bad_steps'}


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Saver:
    """tf.train.Saver with names that are the same on all devices.

    Loss scaling builds Adam's scalars inside a conditional, whose name they then bear: they are
    saved under their plain names. Its own variables start afresh where a checkpoint has none.
    """

    def __init__(self, variables: Sequence[Any]) -> None:
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

    def restore(self, session: Any, path: str) -> None:
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

    def __init__(self, folder: str, keep: int = 3) -> None:
        self.folder, self._keep = folder, keep

    def save(self, session: Any, saver: Any, step: int, contents: Mapping[str, Any]) -> str:
        """Writes the checkpoint of `step` and prunes old ones. Returns its path.

        Args:
          contents: JSON values for the manifest.

        Raises:
          OSError: it could not be written, on a full disk perhaps; no trace of it is left.
        """
        path = os.path.join(self.folder, f'step-{step:08d}')
        os.makedirs(self.folder, exist_ok=True)
        for name in os.listdir(self.folder):
            if name.endswith('.tmp'):  # left by a run that was killed while writing
                shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)
        self._replace(path, session, saver, step, contents)
        self.prune(step)
        return path

    def save_aside(
        self, path: str, session: Any, saver: Any, step: int, contents: Mapping[str, Any]
    ) -> str:
        """The same, outside the series: never pruned, never continued from.

        Raises:
          ValueError: something else than a checkpoint is at `path`.
          OSError: it could not be written.
        """
        path = os.path.abspath(path)
        names = os.listdir(path) if os.path.isdir(path) else []
        if os.path.lexists(path) and not (
            manifest.FILE in names
            and all(name.startswith((manifest.FILE, manifest.PREFIX + '.')) for name in names)
        ):
            raise ValueError(
                f'{path}: expected the name of a new folder, or of a checkpoint to replace. '
                'Received: something else is there'
            )
        os.makedirs(os.path.dirname(path), exist_ok=True)
        mark = '.gitloss'  # a folder "best.old" is the user's
        shutil.rmtree(path + mark + '.tmp', ignore_errors=True)
        self._replace(path, session, saver, step, contents, mark)
        return path

    def _replace(
        self,
        path: str,
        session: Any,
        saver: Any,
        step: int,
        contents: Mapping[str, Any],
        mark: str = '',
    ) -> None:
        temporary, old = path + mark + '.tmp', path + mark + '.old'
        try:
            self._write(temporary, session, saver, step, contents)
            # The same step again: the old one counts until the new one is in its place.
            if os.path.exists(path):
                shutil.rmtree(old, ignore_errors=True)
                os.rename(path, old)
            os.rename(temporary, path)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise OSError(f'{path}: {reason(error)}')
        _sync(os.path.dirname(path))
        shutil.rmtree(old, ignore_errors=True)

    def _write(
        self, temporary: str, session: Any, saver: Any, step: int, contents: Mapping[str, Any]
    ) -> None:
        os.mkdir(temporary)
        prefix = os.path.join(temporary, manifest.PREFIX)
        with session.graph.as_default():  # a saver refuses to work where TensorFlow 2 is eager
            saver.save(session, prefix, write_meta_graph=False, write_state=False)
        manifest.write(temporary, step, contents)
        for name in os.listdir(temporary) + ['.']:
            _sync(os.path.join(temporary, name))

    def paths(self) -> list[str]:
        """Folders of all checkpoints, oldest first, not verified."""
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        found = sorted(
            (int(match.group(1)), not match.group(2), match.group(0))
            for match in map(manifest.FOLDER.match, names)
            if match
        )
        return [os.path.join(self.folder, name) for _, _, name in found]

    def newest(self, needed: Sequence[str] = ()) -> Checkpoint | None:
        """The newest whole checkpoint, or None.

        One that is damaged or lacks what is `needed` is passed over with a warning.
        """
        for path in reversed(self.paths()):
            try:
                return read(path, needed)
            except DamagedCheckpoint as error:
                log.warning('checkpoint passed over: %s', error)
        return None

    def best(self) -> str | None:
        """Folder of the best checkpoint by the metric that the run chooses by, or None.

        The newest manifest names the metric. Of equals the earliest is the best.
        """
        paths = self.paths()
        judged = [manifest.judgement(path) for path in paths]
        choice: dict[str, Any] = next((best for _, best in reversed(judged) if best), {})
        name, higher_is_better = str(choice.get('name')), bool(choice.get('higher_is_better'))
        place = declaration.best([metrics for metrics, _ in judged], name, higher_is_better)
        return None if place is None else paths[place]

    def prune(self, step: int) -> None:
        """Removes old checkpoints once that of `step` is written, but for the best.

        Later ones than that are damaged ones that the run passed over: they do not count.
        """
        counting = [
            path for path in self.paths() if int(re.sub(r'\D', '', os.path.basename(path))) <= step
        ]
        keep = set(counting[-self._keep :] + [self.best()])
        for path in counting:
            if path not in keep:
                try:
                    shutil.rmtree(path)
                except OSError as error:
                    log.warning('an old checkpoint stays: %s', error)
