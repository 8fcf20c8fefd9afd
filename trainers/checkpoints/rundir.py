"""The folder of a run: who may write into it, and what becomes of a run found there."""

from __future__ import annotations

import fcntl
import json
import os
from typing import IO, Any, Mapping

from gitloss.errors import log, one_line
from gitloss.files import write_atomically
from trainers import checkpoints
from trainers.devices import npu_options
from trainers.options import FIELDS, names_in

_LOCK = 'run.lock'
# Flags in which a continuation may differ from the run it continues: where things lie, what is
# shown, how long it goes on, and the
# device with all that belongs to it, so that a run begun on an NPU goes on elsewhere.
_FREE = names_in('device', 'export') | {
    'data_path',
    'exp_save_dir',
    'ckpt_path',
    'resume',
    'steps',
    'save_every',
    'keep_checkpoints',
    'log_every',
    'tf_logs',
    'projection',
    'on_nan',
    'max_loss',
    'early_stopping',
}
# Flags in which the workers of one run may differ: where things lie on their machine, what they
# show, and what the chief alone does.
_FREE_FOR_A_WORKER = {
    'data_path',
    'exp_save_dir',
    'ckpt_path',
    'resume',
    'keep_checkpoints',
    'log_every',
    'tf_logs',
    'projection',
    'device',
}


def differing_flags(saved, now, free=_FREE):
    """Flags that matter and differ, as 'name (was a, is b)'. A flag the saved options do not know
    counts as its default.
    """
    defaults = {name: field.default for name, field in FIELDS.items()}
    free = (
        free - {'steps'} if 'cosine' in (saved.get('schedule'), now['schedule']) else free
    )  # the cosine ends at --steps
    return [
        f'--{name} (was {saved.get(name, defaults[name])}, is {now[name]})'
        for name in defaults
        if name not in free and saved.get(name, defaults[name]) != now[name]
    ]


class RunDir:
    """Holds a run's folder for this process.

    The lock is the operating system's, on `run.lock`: it ends with the process that holds it,
    however that ends, so a file left behind by a killed run stops nobody.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def claim(self) -> None:
        """Makes the folder if need be and locks it.

        Raises:
          ValueError: it cannot be written, or a live process uses it.
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
        lock.write(f'{os.getpid()}\n')
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

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
          The checkpoint to continue. None: the run starts anew, an earlier one was moved aside.

        Raises:
          ValueError: the folder cannot be used, or the run found there is another one.
        """
        self.claim()
        checkpoint = checkpoint_to_continue(resume, store, options, dataset_facts)
        if checkpoint is None:
            self.move_aside()
        write_atomically(os.path.join(self.path, 'options.json'), json.dumps(options, indent=1))
        return checkpoint

    def move_aside(self) -> None:
        """Renames a folder that is not empty to the first free `<path>.<n>` and makes it anew."""
        if not set(os.listdir(self.path)) - {_LOCK}:
            return
        number = 1
        while os.path.exists(f'{self.path}.{number}'):
            number += 1
        target = f'{self.path}.{number}'
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
    """The checkpoint that a run continues, or None to start anew.

    Raises:
      ValueError: the run found has other options or data, or `resume` is "required" and there is
        none.
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
    # A sunk loop may go past the end after an overflow.
    if checkpoint.step >= options['steps'] + options['iterations_per_loop']:
        raise ValueError(
            f'--steps: expected at least {checkpoint.step}, the steps already done. '
            f'Received: {options["steps"]}{hint}'
        )
    return checkpoint


def check_worker(rank, mine, chiefs):
    """Raises ValueError where a worker would not train the same as the chief. Of both: (options,
    facts of the data set).
    """
    # A dump or a profile of a rank goes to a folder of its own.
    shared = [
        dict(flags, npu_option=npu_options.of_all_ranks(flags['npu_option']))
        for flags in (chiefs[0], mine[0])
    ]
    differing = differing_flags(*shared, free=_FREE_FOR_A_WORKER)
    if chiefs[1] != mine[1]:
        differing.append('--data_path (another data set)')
    if differing:
        raise ValueError(
            'worker %d: expected the flags of worker 0. Received: %s' % (rank, ', '.join(differing))
        )
