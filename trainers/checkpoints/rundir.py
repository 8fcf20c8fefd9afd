"""The folder of a run: which process may write to it, and what happens to a run found there."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from typing import IO, Any, Mapping, Sequence

from gitloss.errors import log, one_line
from gitloss.files import write_atomically
from trainers import checkpoints
from trainers.devices import npu_options
from trainers.options import FIELDS

_LOCK = 'run.lock'


def differing_flags(
    saved: Mapping[str, Any], now: Mapping[str, Any], between: str = 'resume'
) -> list[str]:
    """Flags that differ and must not, as 'name (was a, is b)'.

    Args:
      saved, now: {flag: value}. A flag missing in `saved` has its default.
      between: 'resume', a run and its continuation, or 'workers', two workers of a run.
    """
    cosine = 'cosine' in (saved.get('schedule'), now['schedule'])  # it ends at --steps
    return [
        f'--{name} (was {saved.get(name, option.default)}, is {now[name]})'
        for name, option in FIELDS.items()
        if not getattr(option, between) or (cosine and name == 'steps')
        if saved.get(name, option.default) != now[name]
    ]


class RunDir:
    """Locks the folder of a run for this process.

    The operating system holds the lock, on `run.lock`, and releases it when the process ends in
    whichever way. So the file of a killed run blocks nobody.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def claim(self) -> None:
        """Creates the folder if it is missing, and locks it.

        Raises:
          ValueError: it cannot be written to, or another process holds the lock.
        """
        try:
            os.makedirs(self.path, exist_ok=True)
            lock = open(os.path.join(self.path, _LOCK), 'a+')
        except OSError as error:
            raise ValueError(
                f'--exp_save_dir: expected a folder that can be written. Received: {error}'
            )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise ValueError(
                '--exp_save_dir: expected a folder that no running training uses. '
                f'Received: {self.path}, in use by process {lock.read().strip() or "unknown"}'
            )
        lock.truncate(0)
        print(os.getpid(), file=lock, flush=True)
        self._lock = lock

    def release(self) -> None:
        """Unlocks the folder."""
        if self._lock is not None:
            self._lock.close()

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
        self.claim()
        checkpoint = checkpoint_to_continue(resume, store, options, dataset_facts)
        if checkpoint is None:
            self.move_aside()
        write_atomically(os.path.join(self.path, 'options.json'), json.dumps(options, indent=1))
        return checkpoint

    def move_aside(self) -> None:
        """Renames a folder with files to the first free `<path>.<n>`, and creates it again."""
        if set(os.listdir(self.path)) - {_LOCK}:
            names = (f'{self.path}.{number}' for number in itertools.count(1))
            target = next(name for name in names if not os.path.exists(name))
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
