"""Means over the steps since the last measurement, speed, and updates skipped after overflows."""

from __future__ import annotations

import collections
from typing import Any, Mapping, Sequence

from gitloss.errors import DamagedCheckpoint, Diverged, log
from gitloss.metrics import declaration
from gitloss.metrics.declaration import Metric

_MOST_OVERFLOWS = 200  # in a row: far fewer halve the scale down to 1
# The values of a step that are not losses.
_OTHERS = {
    'accuracy': declaration.accuracy('train'),
    'center_drift': Metric('center_drift', 'center drift', 'centers'),
    'git_floor': Metric('train_git_floor', 'git floor', 'train'),
}
_OF_THE_RUN = (
    Metric('learning_rate', 'learning rate', 'train'),
    Metric('images_per_sec', 'images/s', higher_is_better=True, label='images/s'),
    Metric('seconds', 'seconds', label='seconds'),
    Metric('overflow_steps', 'updates left out after overflows'),
)


class Meter:
    """Sums the values of the steps. Checkpoints hold its state, so that a resumed run measures as
    one without interruption.

    Args:
      names: values of a step whose means a measurement logs.
      batch_size: images of a step.
      overflows_are_logged: whether measurements log the number of skipped updates.

    Attributes:
      epoch: number of measurements so far.
      logs: the logs of the last measurement.
      metrics: the declarations of the numbers in `means`.
      totals: a Counter, the sums over the steps since the last measurement.
      skipped: number of steps of the run whose update was skipped.
    """

    def __init__(
        self, names: Sequence[str], batch_size: int, overflows_are_logged: bool = False
    ) -> None:
        self._means = {name: _OTHERS.get(name) or declaration.loss('train', name) for name in names}
        self.metrics = [*self._means.values(), *_OF_THE_RUN]
        self._batch_size, self._overflows_are_logged = batch_size, overflows_are_logged
        self.epoch = self.skipped = self._skipped_in_a_row = 0
        self.logs: dict[str, Any] = {}
        self.totals: Any = collections.Counter()
        self._timing: Any = collections.Counter(seconds=0, steps=0)
        # The first step of a process also compiles: the timing leaves it out.
        self._warm = False

    def add(self, logs: Mapping[str, Any], steps: int, seconds: float) -> None:
        """Adds `steps` steps that one call made in `seconds`; `logs` are those of the last one."""
        self._skipped_in_a_row = 0
        if self._warm:
            self._timing.update(seconds=seconds, steps=steps)
        self._warm = True
        self.totals.update({name: steps * logs[name] for name in self._means})
        self.totals.update(steps=steps, seconds=seconds)
        self.totals['learning_rate'] = logs['learning_rate']  # of the last step, not a sum

    def add_overflows(self, step: int, count: int, per_run: int) -> None:
        """Counts `count` updates that loss scaling skipped in a call of `per_run` steps.

        The first one is logged, then every doubling of the number.

        Raises:
          Diverged: too many in a row.
        """
        before, self.skipped = self.skipped, self.skipped + count
        self._skipped_in_a_row += count
        if self.skipped.bit_length() > before.bit_length():
            log.info(
                'step %d: overflow under loss scaling, update left out; %d so far',
                step,
                self.skipped,
            )
        if self._skipped_in_a_row > max(_MOST_OVERFLOWS, per_run):
            raise Diverged(
                f'step {step}: expected one without overflow. Received: '
                f'{self._skipped_in_a_row} in a row; is --loss_scale too large?'
            )

    def means(self, step: int) -> dict[str, Any]:
        """The logs of a measurement at `step`: means over the steps since the last one."""
        totals = self.totals
        logs = {
            'step': step,
            'learning_rate': totals['learning_rate'],
            'images_per_sec': self._batch_size * totals['steps'] / totals['seconds'],
            'seconds': totals['seconds'],
            **{metric.name: totals[name] / totals['steps'] for name, metric in self._means.items()},
        }
        if self._overflows_are_logged:
            logs['overflow_steps'] = self.skipped
        return logs

    def close_epoch(self, logs: dict[str, Any]) -> None:
        """Ends a measurement; the next one starts with the next step."""
        self.logs, self.totals, self.epoch = logs, collections.Counter(), self.epoch + 1

    def throughput(self) -> dict[str, float | None]:
        """{'images_per_sec', 'sec_per_step'} without the first step of the process."""
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

    def load(self, checkpoint: Any) -> None:
        """Takes back the `state` in a checkpoint's manifest.

        Raises:
          DamagedCheckpoint: the sums are of another kind of run.
        """
        manifest = checkpoint.manifest
        totals: Any = collections.Counter(manifest['totals'])
        timing: Any = collections.Counter(manifest['timing'])
        skipped = int(timing.pop('skipped', 0))
        sums = set(self._means) | {'steps', 'seconds', 'learning_rate'}
        fits = not totals or (set(totals) == sums and totals['steps'] > 0 and totals['seconds'] > 0)
        if not fits or set(timing) != set(self._timing) or skipped >= 1 << 31:
            raise DamagedCheckpoint(
                f'{checkpoint.path}: expected the sums of a run of this model in the manifest. '
                f'Received: timing of {sorted(timing)}, totals of {sorted(totals)}'
            )
        self.epoch, self.logs, self.totals = manifest['epoch'], dict(manifest['logs']), totals
        self._timing, self.skipped = timing, skipped
