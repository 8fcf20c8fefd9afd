"""The checkpoints of a run, each of which exists whole or not at all.

A checkpoint is a folder `step-00001000` with TensorFlow's own two files and `manifest.json`: step,
metrics, state of the callbacks, what is needed to rebuild the model, and the SHA-256 of every file.
It is written under a temporary name, flushed to the disk and renamed: a reader sees all of it or
nothing. TensorFlow 1.15 and 2.x read each other's checkpoints.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from typing import Any, Callable, Mapping, Sequence

from gitloss import files
from gitloss.backend import tf
from gitloss.errors import DamagedCheckpoint, FolderLost, log, reason
from gitloss.metrics import declaration
from trainers.checkpoints import manifest
from trainers.checkpoints.manifest import Checkpoint, read

_UNFINISHED = re.compile(r'step-[0-9]{8,}\.tmp')


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(path: str) -> None:
    with contextlib.closing(files.Folder(path)) as folder:
        if folder.lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            files.remove(path)


class CheckpointStore:
    """The checkpoints of one run.

    Args:
      folder: the `ckpt` folder of the run; created by the first save.
      keep: number of newest checkpoints to keep. The best one, by the metric in the manifests, is
        kept as well.
      check: raises FolderLost if the folder of the run is gone or another one.
    """

    def __init__(
        self, folder: str, keep: int = 3, check: Callable[[], None] = lambda: None
    ) -> None:
        self.folder, self._keep, self._check = folder, keep, check
        self._own: files.Folder | None = None

    def _enter(self) -> None:
        """Creates the folder, or checks that it still is the one of the last save.

        Raises:
          FolderLost: another one is there, or the run's folder is lost.
          OSError: it cannot be created.
        """
        self._check()
        if not os.path.isdir(self.folder):
            os.mkdir(self.folder)
            self._own = None
        if self._own is None:
            self._own = files.Folder(self.folder)
        elif not self._own.is_in_place:
            raise FolderLost(
                f'{self.folder}: expected the folder with the checkpoints of this run. '
                'Received: another folder'
            )

    def save(self, session: Any, saver: Any, step: int, contents: Mapping[str, Any]) -> str:
        """Writes the checkpoint of `step` and prunes old ones. Returns its path.

        Args:
          contents: JSON values for the manifest.

        Raises:
          OSError: it cannot be written, for example on a full disk; no part of it is left.
          FolderLost: the folder is not that of this run; nothing is written or removed.
        """
        path = os.path.join(self.folder, f'step-{step:08d}')
        self._enter()
        for name in filter(_UNFINISHED.fullmatch, os.listdir(self.folder)):  # of a killed run
            with contextlib.suppress(OSError):
                files.remove(os.path.join(self.folder, name))
        self._replace(path, session, saver, step, contents, self._enter)
        self.prune(step)
        return path

    def save_aside(
        self, path: str, session: Any, saver: Any, step: int, contents: Mapping[str, Any]
    ) -> str:
        """As `save`, outside the series of the run: never pruned, never resumed from.

        Raises:
          ValueError: `path` exists and is not a checkpoint.
          OSError: it cannot be written.
          FolderLost: the folder of the run is gone or another one.
        """
        self._check()  # the path may be in it
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
        mark = '.gitloss'  # a folder "best.old" may be the user's
        with contextlib.suppress(OSError):
            files.remove(path + mark + '.tmp')
        self._replace(path, session, saver, step, contents, self._check, mark)
        return path

    def _replace(
        self,
        path: str,
        session: Any,
        saver: Any,
        step: int,
        contents: Mapping[str, Any],
        check: Callable[[], None],
        mark: str = '',
    ) -> None:
        temporary, old = path + mark + '.tmp', path + mark + '.old'
        try:
            os.mkdir(temporary)
            with session.graph.as_default():  # a saver refuses to work in eager mode
                saver.save(session, os.path.join(temporary, manifest.PREFIX))
            manifest.write(temporary, step, contents)
            for name in os.listdir(temporary) + ['.']:
                _sync(os.path.join(temporary, name))
            check()
            # The same step again: the old checkpoint is valid until the new one is in its place.
            if os.path.lexists(path):
                files.remove(old)
                os.rename(path, old)
            os.rename(temporary, path)
        except (OSError, ValueError, tf.errors.OpError) as error:  # ValueError: of a saver
            check()  # another run may write the same step there
            with contextlib.suppress(OSError):
                files.remove(temporary)
            raise OSError(f'{path}: {reason(error)}')
        _sync(os.path.dirname(path))
        with contextlib.suppress(OSError):
            files.remove(old)

    def paths(self) -> list[str]:
        """Folders of all checkpoints, oldest first, not verified."""
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        found = sorted(
            (int(match.group(1)), not match.group(2), match.group(0))
            for match in map(manifest.FOLDER.fullmatch, names)
            if match
        )
        return [os.path.join(self.folder, name) for _, _, name in found]

    def newest(self, needed: Sequence[str] = ()) -> Checkpoint | None:
        """The newest whole checkpoint, or None.

        Checkpoints that are damaged or lack an entry that is `needed` are skipped with a warning.

        Raises:
          FolderLost: the folder of the run is gone or another one.
        """
        self._check()
        for path in reversed(self.paths()):
            try:
                return read(path, needed)
            except DamagedCheckpoint as error:
                log.warning('checkpoint passed over: %s', error)
        return None

    def best(self) -> str | None:
        """Folder of the best checkpoint by the metric of --best, or None.

        The newest manifest names the metric. Of equal values the earliest is the best.
        """
        paths = self.paths()
        judged = [manifest.judgement(path) for path in paths]
        choice: dict[str, Any] = next((best for _, best in reversed(judged) if best), {})
        place = declaration.best(
            [metrics for metrics, _ in judged],
            str(choice.get('name')),
            bool(choice.get('higher_is_better')),
        )
        return None if place is None else paths[place]

    def prune(self, step: int) -> None:
        """Removes old checkpoints after the one of `step` is written, except the best.

        Checkpoints of later steps are damaged ones that the run skipped: they do not count. One
        that another process reads stays until the next pruning.
        """
        self._enter()
        counting = [
            path
            for path in self.paths()
            if int(re.sub('[^0-9]', '', os.path.basename(path))) <= step
        ]
        for path in sorted(set(counting[: -self._keep]) - {self.best()}):
            try:
                _prune(path)
            except OSError as error:
                log.warning('an old checkpoint stays: %s', error)
