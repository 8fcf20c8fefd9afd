"""The folder of a run: which process may write to it, and what happens to a run found there."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
from typing import Any, Mapping, Sequence

from gitloss import files
from gitloss.errors import FolderLost, check, log, one_line
from trainers import checkpoints
from trainers.devices import npu_options
from trainers.options import differing_flags

_LOCK = 'run.lock'
# One of these is in the folder of every run, or of one that was killed while it began.
_OF_A_RUN = {_LOCK, 'options.json', 'options.json.tmp', 'ckpt', 'history.jsonl', 'train_0.log'}


class RunDir:
    """The folder of a run: knows it again, and locks it for this process.

    The operating system holds the locks and releases them when the process ends in whichever way:
    the one on the folder itself, which needs no file, and the one on `run.lock`, which on NFS keeps
    other machines out, too. So the file of a killed run blocks nobody.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder: files.Folder | None = None
        self._held = contextlib.ExitStack()

    def enter(self) -> files.Folder:
        """Creates the folder if it is missing, and opens it: from now on `check` knows it."""
        os.makedirs(self.path, exist_ok=True)
        self._folder = files.Folder(self.path)
        self._held.callback(self._folder.close)
        return self._folder

    def check(self) -> None:
        """To be called before each write: what is at the path must be the folder of this run.

        Raises:
          FolderLost: the folder was entered, and is gone or has been replaced since.
        """
        if self._folder is not None and not self._folder.is_in_place:
            received = 'another folder' if os.path.lexists(self.path) else 'none, it is gone'
            raise FolderLost(
                f'--exp_save_dir: expected the folder of this run at {self.path}. '
                f'Received: {received}'
            )

    def claim(self) -> None:
        """Enters and locks the folder.

        Raises:
          ValueError: it cannot be written to, or another process holds a lock.
        """
        try:
            is_free = self._lock()
        except OSError as error:
            self.release()
            raise ValueError(
                '--exp_save_dir: expected a folder that can be written. '
                f'Received: {error.filename or self.path}: {error.strerror}'
            )
        if not is_free:
            self.release()
            raise ValueError(
                '--exp_save_dir: expected a folder that no running training uses. '
                f'Received: {self.path}, in use by process {self._owner()}'
            )

    def _lock(self) -> bool:
        """Whether this process has got both locks."""
        folder = self.enter()
        if not folder.lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        if not folder.is_in_place:  # another process has just moved it aside
            self.release()
            return self._lock()
        file = self._held.enter_context(files.append(os.path.join(self.path, _LOCK)))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        file.truncate(0)
        # Not through the file's buffer, which a full disk would let fail again when it is closed.
        os.write(file.fileno(), f'{os.getpid()}\n'.encode('ascii'))
        return True

    def _owner(self) -> str:
        try:
            text = files.read(os.path.join(self.path, _LOCK), 100).decode('ascii', 'replace')
        except OSError:
            text = ''
        return text.strip() or 'unknown'

    def release(self) -> None:
        """Leaves the folder: unlocks it, and no longer checks it."""
        self._folder = None
        self._held.close()

    def begin(
        self,
        resume: str,
        store: checkpoints.CheckpointStore,
        options: Mapping[str, Any],
        dataset_facts: Mapping[str, Any],
    ) -> checkpoints.Checkpoint | None:
        """Claims the folder for a run.

        Args:
          resume: auto, never or required, as --resume.
          options: {flag: value}.

        Returns:
          The checkpoint to continue from. None: a new run starts; an earlier one is moved aside.

        Raises:
          ValueError: the folder cannot be used, or contains another run.
        """
        self._refuse_foreign()
        self.claim()
        checkpoint = checkpoint_to_continue(resume, store, options, dataset_facts)
        if checkpoint is None:
            self.move_aside()
        files.write_atomically(
            os.path.join(self.path, 'options.json'), json.dumps(options, indent=1)
        )
        return checkpoint

    def _refuse_foreign(self) -> None:
        """A folder of something else is neither renamed nor written to."""
        names: set[str] = set()
        with contextlib.suppress(OSError):  # `claim` says what is wrong
            names.update(os.listdir(self.path))
        check(
            not names or names & _OF_A_RUN,
            '--exp_save_dir',
            'a new or empty folder, or that of a run',
            f'{self.path}, with other files, as {one_line(min(names, default=""), 80)}',
        )

    def move_aside(self) -> None:
        """Renames a folder with files to the first free `<path>.<n>`, and creates it again."""
        if set(os.listdir(self.path)) - {_LOCK}:
            names = (f'{self.path}.{number}' for number in itertools.count(1))
            target = next(name for name in names if not os.path.lexists(name))
            os.rename(self.path, target)
            self.release()
            self.claim()
            log.info('an earlier run was moved to %s', target)


def checkpoint_to_continue(
    resume: str,
    store: checkpoints.CheckpointStore,
    options: Mapping[str, Any],
    dataset_facts: Mapping[str, Any],
) -> checkpoints.Checkpoint | None:
    """The checkpoint from which a run continues, or None for a new run.

    Raises:
      ValueError: the run found has other options or data, or `resume` is "required" and there is
        no checkpoint.
    """
    checkpoint = store.newest(checkpoints.TO_CONTINUE) if resume != 'never' else None
    if checkpoint is None:
        if resume == 'required':
            raise ValueError(
                f'--resume: expected a checkpoint in {store.folder} to continue. '
                'Received: none that is whole'
            )
        return None
    folder = os.path.dirname(store.folder)
    hint = '; --resume=never moves the old run aside and starts anew'
    differing = differing_flags(checkpoint.manifest['options'], options)
    if differing:
        raise ValueError(
            f'--resume: expected the flags of the run in {folder}. '
            f'Received: {one_line(", ".join(differing))}{hint}'
        )
    if checkpoint.manifest['dataset'] != dataset_facts:
        raise ValueError(
            f'--data_path: expected the data set of the run in {folder}. '
            f'Received: another one{hint}'
        )
    # After an overflow a sunk loop may end beyond --steps.
    if checkpoint.step >= options['steps'] + options['iterations_per_loop']:
        raise ValueError(
            f'--steps: expected at least {checkpoint.step}, the steps of {checkpoint.path}. '
            f'Received: {options["steps"]}{hint}'
        )
    return checkpoint


def check_worker(rank: int, mine: Sequence[Any], chiefs: Sequence[Any]) -> None:
    """Compares a worker with the chief.

    Args:
      mine, chiefs: ({flag: value}, facts of the data set) of each.

    Raises:
      ValueError: flags or data differ that all workers must share.
    """
    # Each rank has its own folder for dumps and profiles.
    saved, now = (
        dict(flags, npu_option=npu_options.of_all_ranks(flags['npu_option']))
        for flags in (chiefs[0], mine[0])
    )
    differing = differing_flags(saved, now, 'workers')
    if chiefs[1] != mine[1]:
        differing.append('--data_path (another data set)')
    if differing:
        raise ValueError(
            f'worker {rank}: expected the flags of worker 0. Received: {", ".join(differing)}'
        )
