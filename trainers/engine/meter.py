"""What a run counts as it goes: means over the steps since the last measurement, speed, updates
left out after an overflow.
"""

from __future__ import annotations

from gitloss.errors import DamagedCheckpoint, Diverged, log

_MOST_OVERFLOWS = 200  # in a row: a scale that halves has long come to 1 by then


class Meter:
    """All of it is in every checkpoint, so that a continued run measures as an undisturbed one.

    Args:
      names: of a step's values that a measurement gives the means of.
      batch_size: images of a step.
      overflows_are_logged: whether measurements tell how many updates were left out.
    """

    def __init__(self, names, batch_size, overflows_are_logged=False):
        self._names, self._batch_size, self._overflows_are_logged = (
            names,
            batch_size,
            overflows_are_logged,
        )
        self.epoch = 0  # measurements so far
        self.logs = {}  # the last one
        self.totals = {}  # sums over the steps since
        self.skipped = 0  # steps whose update was left out
        self._skipped_in_a_row = 0
        self._timing = {'seconds': 0.0, 'steps': 0}
        self._warm = (
            False  # the first step of a process also compiles: it is left out of the timing
        )

    def add(self, logs, steps, seconds):
        """Takes in the `logs` of `steps` steps of one call."""
        self._skipped_in_a_row = 0
        if self._warm:
            self._timing['seconds'] += seconds
            self._timing['steps'] += steps
        self._warm = True
        for name, value in dict(
            {name: steps * logs[name] for name in self._names}, steps=steps, seconds=seconds
        ).items():
            self.totals[name] = self.totals.get(name, 0) + value
        self.totals['learning_rate'] = logs['learning_rate']  # of the last step, no sum

    def add_overflows(self, step, count, per_run):
        """Loss scaling left out `count` updates. The first one is told, then every time their
        number has doubled.

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
                'step %d: expected one without overflow. Received: %d in a row; is --loss_scale too large?'
                % (step, self._skipped_in_a_row)
            )

    def means(self, step):
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

    def close_epoch(self, logs):
        """The measurement is made: the next one is of the steps that follow."""
        self.logs, self.totals, self.epoch = logs, {}, self.epoch + 1

    def throughput(self):
        seconds = self._timing['seconds'] / max(self._timing['steps'], 1)
        return {
            'images_per_sec': self._batch_size / seconds if seconds else None,
            'sec_per_step': seconds,
        }

    def state(self):
        """The part of a checkpoint's manifest that `load` reads."""
        return {
            'epoch': self.epoch,
            'logs': self.logs,
            'totals': self.totals,
            'timing': dict(self._timing, skipped=self.skipped),
        }

    def load(self, checkpoint):
        """Raises DamagedCheckpoint where the sums are not those of such a run."""
        manifest = checkpoint.manifest
        totals, timing = dict(manifest['totals']), dict(manifest['timing'])
        skipped = int(timing.pop('skipped', 0))
        sums = set(self._names) | {'steps', 'seconds', 'learning_rate'}
        if set(timing) != set(self._timing) or (
            totals and not (set(totals) == sums and totals['steps'] > 0 and totals['seconds'] > 0)
        ):
            raise DamagedCheckpoint(
                f'{checkpoint.path}: expected the sums of a run of this model in the manifest. Received: timing of {sorted(timing)}, totals of {sorted(totals)}'
            )
        self.epoch, self.logs, self.totals = manifest['epoch'], dict(manifest['logs']), totals
        self._timing, self.skipped = timing, skipped
