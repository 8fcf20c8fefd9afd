"""All settings of a run, as one frozen, validated Options."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any, Mapping

from gitloss.errors import OptionError
from trainers.options.data import OF_IMAGES, Data
from trainers.options.exporting import Exporting
from trainers.options.judging import Judging
from trainers.options.learning import Learning
from trainers.options.running import Running
from trainers.options.spec import Option, is_utf8
from trainers.options.sweeping import Sweeping

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))


@dataclasses.dataclass(frozen=True)
class Options(Sweeping, Judging, Exporting, Running, Learning, Data):
    """All settings. Field names are flag names, those of Data first.

    Raises:
      OptionError: a value is not accepted, or two values contradict each other.
    """

    def __post_init__(self) -> None:
        for name, option in FIELDS.items():
            option.check(name, getattr(self, name))
        for wrong, line in (*self._contradictions(), *self._of_classes(), *self._unused()):
            if wrong:
                raise OptionError(line)

    def _contradictions(self) -> tuple[tuple[Any, str], ...]:
        return (
            (
                self.sampler == 'balanced' and self.batch_size % self.images_per_identity,
                f'--images_per_identity: expected a divisor of --batch_size, {self.batch_size}, '
                f'with --sampler=balanced. Received: {self.images_per_identity}',
            ),
            (
                self.schedule == 'step' and not self.decay_steps,
                '--decay_steps: expected at least 1 with --schedule=step. Received: 0',
            ),
            (
                self.schedule == 'cosine' and self.warmup_steps >= self.steps,
                f'--warmup_steps: expected less than --steps, {self.steps}, with '
                f'--schedule=cosine. Received: {self.warmup_steps}',
            ),
            (
                self.augment_until and not self.augment,
                '--augment_until: expected an --augment that it ends. Received: none',
            ),
            (
                self.unfreeze_at and not self.freeze,
                '--unfreeze_at: expected variables to unfreeze, those of --freeze. Received: none',
            ),
            (
                self.unfreeze_at and self.iterations_per_loop > 1,
                '--unfreeze_at: expected --iterations_per_loop=1, since the NPU sinks one kind of '
                f'step. Received: {self.iterations_per_loop}',
            ),
            (
                self.valid_fraction + self.test_fraction >= 1,
                '--valid_fraction: expected less than 1 with --test_fraction, '
                f'{self.test_fraction}. Received: {self.valid_fraction}',
            ),
        )

    def _of_classes(self) -> tuple[tuple[Any, str], ...]:
        """Contradictions of the options of many classes."""
        return (
            (
                not self.shard_classes and (self.class_shards > 1 or self.sample_classes < 1),
                '--class_shards and --sample_classes: expected --shard_classes with them. '
                'Received: none',
            ),
            (
                self.lazy_adam and (self.sample_classes == 1 or self.optimizer != 'adam'),
                '--lazy_adam: expected --sample_classes below 1 and --optimizer=adam. Received: '
                f'--sample_classes={self.sample_classes:g} --optimizer={self.optimizer}',
            ),
            (
                self.reset_centers and self.measure_samples,
                '--measure_samples: expected 0 with --reset_centers, which needs all class means. '
                f'Received: {self.measure_samples}',
            ),
        )

    def _unused(self) -> list[tuple[Any, str]]:
        """Options of images with a set in the format of MNIST."""
        return [
            (
                self.dataset == 'mnist' and getattr(self, name) != FIELDS[name].default,
                f'--{name}: expected a --dataset of images, as folder. '
                f'Received: {getattr(self, name)} with --dataset=mnist',
            )
            for name in OF_IMAGES
        ]

    @property
    def save_interval(self) -> tuple[int, int]:
        """(steps, seconds) between two checkpoints of --save_every; 0: never."""
        number = int(self.save_every.rstrip('s') or 0)
        return (0, number) if self.save_every.endswith('s') else (number, 0)

    @property
    def data_folder(self) -> str:
        """Path of the data set; '' if there is neither --data_path nor a default."""
        default = os.path.join(ROOT, 'data', 'mnist') if self.dataset == 'mnist' else ''
        return self.data_path or default

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of --image_size and --channels."""
        height, _, width = self.image_size.partition('x')
        return int(height), int(width or height), self.channels

    @property
    def run_dir(self) -> str:
        """Absolute path of the run's folder; see `absolute`."""
        default = os.path.join(ROOT, 'output', device_id())
        return absolute('exp_save_dir', self.exp_save_dir or default)

    def as_dict(self) -> dict[str, Any]:
        """{flag: value} of all options, plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def restored(cls, saved: Mapping[str, Any], **changes: Any) -> Options:
        """Options from a saved `as_dict`, with some values changed. Unknown flags are ignored."""
        return cls(**{**{name: saved[name] for name in FIELDS if name in saved}, **changes})

    def with_saved(self, saved: Mapping[str, Any], command: str) -> Options:
        """The options of a checkpoint for `command`. The flags that it takes and those of the
        device come from this process, all others from `saved`.
        """
        return self.restored(
            saved,
            **{
                name: getattr(self, name)
                for name, option in FIELDS.items()
                if command in option.commands or option.group == 'device'
            },
        )

    def hyperparameters(self) -> dict[str, Any]:
        """{flag: value} of the options that are hyperparameters."""
        return {
            name: getattr(self, name) for name, option in FIELDS.items() if option.hyperparameter
        }


FIELDS: dict[str, Option] = {
    field.name: field.metadata['option'] for field in dataclasses.fields(Options)
}


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


def absolute(flag: str, path: str) -> str:
    """The absolute path of a folder to write to, without links, which may lead elsewhere later.

    Raises:
      OptionError: it is relative to a working folder that is gone, or not in UTF-8.
    """
    try:
        found = os.path.realpath(path)
    except FileNotFoundError:
        raise OptionError(
            f'--{flag}: expected an absolute path, since the working folder is gone. '
            f'Received: {path}'
        )
    if not is_utf8(found):
        raise OptionError(
            f'--{flag}: expected a path in UTF-8, and a locale that reads it (LC_ALL). '
            f'Received: {found!r}'
        )
    return found


def device_id(environment: Mapping[str, str] = os.environ) -> str:
    """ASCEND_DEVICE_ID, else DEVICE_ID, else "0"."""
    value = environment.get('ASCEND_DEVICE_ID') or environment.get('DEVICE_ID') or '0'
    if not re.fullmatch('[0-9]{1,4}', value):
        raise OptionError(f'ASCEND_DEVICE_ID: expected a device number. Received: {value!r}')
    return value
