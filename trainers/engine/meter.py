"""What a run counts: means over the steps since the last measurement, speed, overflows."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from gitloss.errors import DamagedCheckpoint, Diverged, log
from trainers.checkpoints import Checkpoint

_MOST_OVERFLOWS = 200  # in a row: a scale that halves has long come to 1 by then


class Meter:
    """Every checkpoint holds all of it: a continued run measures what an undisturbed one would.

    Args:
      names: the values of a step whose means a measurement gives.
      batch_size: images of a step.
      overflows_are_logged: whether measurements say how many updates were skipped.

    Attributes:
      epoch: measurements so far.
      logs: of the last one.
      totals: sums over the steps since then; empty before the first of them.
      skipped: steps whose update was skipped after an overflow.
    """

    def __init__(
        self, names: Sequence[str], batch_size: int, overflows_are_logged: bool = False
    ) -> None:
        self._names, self._batch_size = names, batch_size
        self._overflows_are_logged = overflows_are_logged
        self.epoch, self.skipped = 0, 0
        self.logs: dict[str, Any] = {}
        self.totals: dict[str, float] = {}
        self._skipped_in_a_row = 0
        self._timing = {'seconds': 0.0, 'steps': 0}
        self._warm = False  # the first step of a process also compiles: it is not timed

    def add(self, logs: Mapping[str, Any], steps: int, seconds: float) -> None:
        """Adds the `logs` of one call that made `steps` steps in `seconds`."""
        self._skipped_in_a_row = 0
        if self._warm:
            self._timing['seconds'] += seconds
            self._timing['steps'] += steps
        self._warm = True
        sums = {name: steps * logs[name] for name in self._names}
        for name, value in dict(sums, steps=steps, seconds=seconds).items():
            self.totals[name] = self.totals.get(name, 0) + value
        self.totals['learning_rate'] = logs['learning_rate']  # of the last step, not a sum

    def add_overflows(self, step: int, count: int, per_run: int) -> None:
        """Loss scaling has skipped `count` updates. The log says so at every doubling of the sum.

        Raises:
          Diverged: too many in a row.
        """
        before, self.skipped = self.skipped, self.skipped + count
        self._skipped_in_a_row += count
        if self.skipped.bit_length() > before.bit_length():
            text = 'step %d: overflow under loss scaling, update left out; %d so far'
            log.info(text, step, self.skipped)
        if self._skipped_in_a_row > max(_MOST_OVERFLOWS, per_run):
            raise Diverged(
                f'step {step}: expected one without overflow. '
                f'Received: {self._skipped_in_a_row} in a row; is --loss_scale too large?'
            )

    def means(self, step: int) -> dict[str, Any]:
        """What a measurement at `step` says of the steps since the last one."""
        totals = self.totals
        means = {name: totals[name] / totals['steps'] for name in self._names}
        logs = {
            'step': step,
            'train_acc': means.pop('accuracy'),
            'center_drift': means.pop('center_drift'),
            'learning_rate': totals['learning_rate'],
            'images_per_sec': self._batch_size * totals['steps'] / totals['seconds'],
            'seconds': totals['seconds'],
        }
        logs.update({'train_' + name: value for name, value in means.items()})
        if self._overflows_are_logged:
            logs['overflow_steps'] = self.skipped
        return logs

    def close_epoch(self, logs: dict[str, Any]) -> None:
        """The measurement `logs` is made: the next one is of the steps that follow."""
        self.logs, self.totals, self.epoch = logs, {}, self.epoch + 1

    def throughput(self) -> dict[str, float | None]:
        """Images per second and seconds per step of this run, its continued parts included."""
        seconds = self._timing['seconds'] / max(self._timing['steps'], 1)
        return {
            'images_per_sec': self._batch_size / seconds if seconds else None,
            'sec_per_step': seconds,
        }

    def state(self) -> dict[str, Any]:
        """The part of a checkpoint's manifest that `load` reads."""
        return {
            'epoch': self.epoch,
            'logs': self.logs,
            'totals': self.totals,
            'timing': dict(self._timing, skipped=self.skipped),
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Takes back the `state` in a checkpoint.

        Raises:
          DamagedCheckpoint: the sums are not those of such a run.
        """
        manifest = checkpoint.manifest
        totals, timing = dict(manifest['totals']), dict(manifest['timing'])
        skipped = int(timing.pop('skipped', 0))
        sums = set(self._names) | {'steps', 'seconds', 'learning_rate'}
        are_sums = set(totals) == sums and totals['steps'] > 0 and totals['seconds'] > 0
        if set(timing) != set(self._timing) or (totals and not are_sums):
            raise DamagedCheckpoint(
                f'{checkpoint.path}: expected the sums of a run of this model in the manifest. '
                f'Received: timing of {sorted(timing)}, totals of {sorted(totals)}'
            )
        self.epoch, self.logs, self.totals = manifest['epoch'], dict(manifest['logs']), totals
        self._timing, self.skipped = timing, skipped
