"""Command-line flags -> one frozen, validated Options.

Each option is written down once, as a field below: the absl flag, its help, its check and the table
in the README all come from it. Nothing else in the project reads flags.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re

from absl import flags

from gitloss.errors import OptionError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_DEFINE = {
    'int': flags.DEFINE_integer,
    'float': flags.DEFINE_float,
    'bool': flags.DEFINE_boolean,
    'str': flags.DEFINE_string,
}
_KINDS = {'int': int, 'float': float, 'bool': bool, 'str': str}
PRECISION_MODES = (
    'force_fp32',
    'allow_fp32_to_fp16',
    'force_fp16',
    'must_keep_origin_dtype',
    'allow_mix_precision',
    'cube_fp16in_fp32out',
    'allow_mix_precision_fp16',
    'allow_mix_precision_bf16',
    'allow_fp32_to_bf16',
)  # of the NPU
# not with --noevaluate
_MEASURED = (
    r'val|(inter_cls_dist|inter_cls_dist_running|inter_over_intra|intra_cls_dist|centers_moved)$'
)
_EXPECTED = {'int': 'a whole number', 'float': 'a number', 'bool': 'true or false', 'str': 'text'}
# Removed flags, and what to write instead.
_REMOVED = {
    'loss': '--head=softmax, arcface or cosface, with the weights --lambda_c and --lambda_g'
}


class HelpRequested(Exception):
    """--help was given; the text is the message."""


def _option(default, text, group, low=None, high=None, above=None, choices=None):
    return dataclasses.field(
        default=default,
        metadata={
            'help': text,
            'group': group,
            'low': low,
            'high': high,
            'above': above,
            'choices': choices,
        },
    )


@dataclasses.dataclass(frozen=True)
class Options:
    """All settings of a run. Field names are flag names."""

    dataset: str = _option('mnist', 'Data set: mnist (also any other set in its format).', 'data')
    data_path: str = _option(
        '',
        'Folder of IDX files, gzip or raw, or an mnist.npz. Default: data/mnist of the project.',
        'data',
    )
    model: str = _option(
        'mnist_cnn',
        'Embedding network: mnist_cnn (the published one) or lenet_pp (LeNet++).',
        'model',
    )
    embedding_dim: int = _option(2, 'Size of the embeddings.', 'model', low=1, high=65536)
    head: str = _option(
        'softmax',
        'Classifier of the softmax term: softmax; arcface, cosface: margin softmax on cosines.',
        'loss',
    )
    git_loss_form: str = _option(
        'elementwise',
        "elementwise: as in the authors' code and the published numbers; pairwise: the norm "
        'of the paper.',
        'loss',
        choices=('elementwise', 'pairwise'),
    )
    lambda_c: float = _option(
        1.0, 'Weight of the center loss; 0: it is only logged.', 'loss', low=0.0
    )
    lambda_g: float = _option(1.0, 'Weight of the git loss; 0: it is only logged.', 'loss', low=0.0)
    alpha: float = _option(0.5, 'How far the centers move at each step.', 'loss', low=0.0, high=1.0)
    distance: str = _option(
        'euclidean',
        'Distance of the center and git terms; cosine: over embeddings and centers of length 1.',
        'loss',
        choices=('euclidean', 'cosine'),
    )
    center_init: str = _option(
        'zero',
        'First centers: zero, or the class means of a sweep over the training set with the initial '
        'weights.',
        'loss',
        choices=('zero', 'means'),
    )
    reset_centers: bool = _option(
        False, 'Set the centers to the exact class means at each measurement.', 'loss'
    )
    margin: float = _option(
        -1.0,
        "Margin of arcface (radians) and cosface; -1: the paper's, 0.5 and 0.35.",
        'loss',
        low=-1.0,
        high=1.57,
    )
    scale: float = _option(
        0.0, "Scale of the cosines of arcface and cosface; 0: the paper's, 64.", 'loss', low=0.0
    )
    steps: int = _option(8000, 'Training steps.', 'training', low=1)
    batch_size: int = _option(
        128, 'Images per step, of all workers together.', 'training', low=1, high=1 << 20
    )
    learning_rate: float = _option(
        1e-3, 'Learning rate, before --schedule and --warmup_steps.', 'training', above=0.0
    )
    optimizer: str = _option(
        'adam',
        "adam, sgd, momentum (SGD with --momentum), or adagrad, with TensorFlow's defaults otherwise.",
        'training',
        choices=('adam', 'sgd', 'momentum', 'adagrad'),
    )
    adam_epsilon: float = _option(
        1e-8,
        'Epsilon of --optimizer=adam; below 6e-8 it is 0 in float16: 1e-4 is advised with mixed precision.',
        'training',
        above=0.0,
    )
    momentum: float = _option(
        0.9, 'Momentum of --optimizer=momentum.', 'training', low=0.0, high=1.0
    )
    weight_decay: float = _option(
        0.0,
        'L2 penalty on the kernels; biases, normalisation and PReLU slopes are excluded.',
        'training',
        low=0.0,
    )
    norm_statistics: str = _option(
        'global',
        'Batch normalisation with several workers: statistics of the global batch, or of the part '
        'of each worker (local; not the run one worker gives).',
        'training',
        choices=('global', 'local'),
    )
    schedule: str = _option(
        'constant',
        'How the learning rate goes: constant; step: times --decay_rate every --decay_steps; cosine: to 0 '
        'at --steps.',
        'training',
        choices=('constant', 'step', 'cosine'),
    )
    warmup_steps: int = _option(
        0,
        'Steps in which the learning rate rises from 0 in a line, with any schedule.',
        'training',
        low=0,
        high=10**9,
    )
    decay_steps: int = _option(
        0, 'Steps between two falls of --schedule=step.', 'training', low=0, high=10**9
    )
    decay_rate: float = _option(
        0.1, 'Factor of each fall of --schedule=step.', 'training', low=0.0, high=1.0
    )
    update_centers: int = _option(
        1000,
        'Steps between two measurements: class means and distances over the training set, '
        'validation, checkpoint, picture. (The centers of the loss move at every step.)',
        'training',
        low=1,
    )
    seed: int = _option(
        1,
        'Decides initial weights and the order of the batches.',
        'training',
        low=0,
        high=2**31 // 1000 - 1,
    )
    evaluate: bool = _option(
        True,
        'Measure at all; --noevaluate trains only, without pictures (the performance run).',
        'training',
    )
    early_stopping: int = _option(
        0,
        'End the training when --monitor has not improved for as many measurements in a row; 0: never.',
        'training',
        low=0,
        high=10**9,
    )
    monitor: str = _option(
        'valid_loss',
        'What --early_stopping watches: a name in history.jsonl. Accuracies and inter-class distances '
        'are better when larger, all else when smaller.',
        'training',
    )
    callbacks: str = _option(
        '',
        'Callbacks of your own, module:factory or file.py:factory, several with commas between; see '
        'docs/callbacks.md.',
        'training',
    )
    resume: str = _option(
        'auto',
        "auto: go on from the newest whole checkpoint of the run's folder, stop if the flags differ; never: "
        'start anew, an old run is moved aside; required: auto, but a missing checkpoint is an error.',
        'survival',
        choices=('auto', 'never', 'required'),
    )
    save_every: str = _option(
        '',
        'Checkpoints beside those at each measurement: steps, as 500, or seconds, as 300s.',
        'survival',
    )
    on_nan: str = _option(
        'stop',
        'When the loss is NaN, infinite or above max_loss: stop, or go back to the last checkpoint with half '
        'the learning rate.',
        'survival',
        choices=('stop', 'rollback'),
    )
    max_loss: float = _option(
        0.0, 'A loss above it counts as gone wrong; 0: no bound.', 'survival', low=0.0
    )
    init_checkpoint: str = _option(
        '',
        "Fine-tuning: weights to start from, a checkpoint or a run's folder. With another number of "
        'classes the classifier and the centers start afresh.',
        'fine-tuning',
    )
    freeze: str = _option(
        '', 'Weights not to train: beginnings of variable names, as conv1,conv2.', 'fine-tuning'
    )
    device: str = _option(
        'auto',
        'auto: npu if ASCEND_DEVICE_ID or DEVICE_ID is set and its adapter can be imported, else gpu, else cpu.',
        'device',
        choices=('auto', 'cpu', 'gpu', 'npu'),
    )
    precision: str = _option(
        '',
        "fp32, or mixed: npu, allow_mix_precision; gpu, float16 by TensorFlow's graph rewrite with dynamic loss "
        'scaling; cpu on TensorFlow 2.x, bfloat16 by oneDNN. Default: mixed on npu, else fp32. docs/ascend.md.',
        'device',
        choices=('', 'fp32', 'mixed'),
    )
    precision_mode: str = _option(
        '',
        'Precision mode of the NPU, if not the one --precision stands for; without effect on cpu and gpu.',
        'device',
        choices=('',) + PRECISION_MODES,
    )
    loss_scale: str = _option(
        '',
        'Loss scaling: a number from 1 on, or dynamic. Default: dynamic with --precision=mixed on gpu, else '
        'none.',
        'device',
    )
    iterations_per_loop: int = _option(
        1,
        'Steps that the NPU makes per call; it must divide --steps and all intervals.',
        'device',
        low=1,
        high=10**6,
    )
    npu_option: str = _option(
        '',
        "Settings of the NPU's session, key=value, several with commas between: docs/ascend.md lists them.",
        'device',
    )
    collective_timeout: float = _option(
        60.0,
        'Several workers: seconds without an answer of another worker after which all the others '
        'stop; ten times as many at the start. The chief must save and draw in less. On NPUs it is '
        '--npu_option=hccl_timeout=SECONDS.',
        'device',
        above=0.0,
    )
    check_replicas: int = _option(
        100,
        'Several workers: steps between two comparisons of all their variables; 0: never.',
        'device',
        low=0,
        high=10**9,
    )
    exp_save_dir: str = _option(
        '',
        "The run's folder. Default: output/<ASCEND_DEVICE_ID, 0 if unset> of the project. See --resume "
        'for a run found there; nothing is overwritten.',
        'output',
    )
    ckpt_path: str = _option(
        '',
        'A checkpoint, or a folder with some: for trainers.evaluate and trainers.export.',
        'output',
    )
    format: str = _option(
        'pb',
        'What trainers.export writes: pb, a frozen graph of the inference.',
        'export',
        choices=('pb',),
    )
    export_dir: str = _option(
        '', 'Folder of the export. Default: export in the folder of --ckpt_path.', 'export'
    )
    export_batch: int = _option(
        1,
        'Images per call of the exported graph, whose shapes are fixed.',
        'export',
        low=1,
        high=1 << 20,
    )
    keep_checkpoints: int = _option(
        3, 'Newest checkpoints to keep; the best one by valid_acc is kept besides.', 'output', low=1
    )
    log_every: int = _option(
        100, 'Steps between two progress lines where stderr is no terminal.', 'output', low=1
    )
    projection: str = _option(
        'pca',
        'Pictures of embeddings of more than two dimensions: pca, the two principal axes; tsne: a t-SNE of '
        'the last measurement besides (needs scikit-learn).',
        'output',
        choices=('pca', 'tsne'),
    )
    tf_logs: bool = _option(False, "Show TensorFlow's own log and warnings.", 'output')

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        if self.save_every and not re.match(r'[1-9]\d{0,8}s?$', self.save_every):
            raise OptionError(
                f'--save_every: expected steps, as 500, or seconds, as 300s. Received: {self.save_every!r}'
            )
        if self.schedule == 'step' and not self.decay_steps:
            raise OptionError(
                '--decay_steps: expected at least 1 with --schedule=step. Received: 0'
            )
        if self.schedule == 'cosine' and self.warmup_steps >= self.steps:
            raise OptionError(
                '--warmup_steps: expected less than --steps, %d, with --schedule=cosine. Received: %d'
                % (self.steps, self.warmup_steps)
            )
        if self.loss_scale not in ('', 'dynamic') and not re.match(
            r'[1-9]\d{0,37}(\.\d+)?$', self.loss_scale
        ):
            raise OptionError(
                f'--loss_scale: expected a number from 1 on, dynamic, or nothing. Received: {self.loss_scale!r}'
            )
        if self.early_stopping and not self.evaluate and re.match(_MEASURED, self.monitor):
            raise OptionError(
                f'--monitor: expected a value of the training, as train_loss, with --noevaluate. Received: {self.monitor}'
            )

    @property
    def save_interval(self):
        """(steps, seconds) between two checkpoints by --save_every; 0 is never."""
        number = int(self.save_every.rstrip('s') or 0)
        return (0, number) if self.save_every.endswith('s') else (number, 0)

    @property
    def data_folder(self):
        return self.data_path or os.path.join(ROOT, 'data', 'mnist')

    @property
    def run_dir(self):
        return os.path.abspath(self.exp_save_dir or os.path.join(ROOT, 'output', device_id()))

    def as_dict(self):
        return dataclasses.asdict(self)

    @classmethod
    def restored(cls, saved, **changes):
        """Of what `as_dict` once gave, with some values changed. Flags that are no more are passed
        over.
        """
        return cls(
            **dict({name: value for name, value in saved.items() if name in FIELDS}, **changes)
        )

    def hyperparameters(self):
        """{flag: value} of those that decide what is learnt, and not where it lies, what is kept or
        which device learns it.
        """
        others = names_in('survival', 'device', 'output', 'export') - {
            'precision',
            'loss_scale',
        } | {'data_path'}
        return {name: value for name, value in self.as_dict().items() if name not in others}


FIELDS = {field.name: field for field in dataclasses.fields(Options)}


def names_in(*groups):
    """Names of the flags of some groups."""
    return {name for name, field in FIELDS.items() if field.metadata['group'] in groups}


def device_id(environment=os.environ):
    """ASCEND_DEVICE_ID, else DEVICE_ID, else "0"."""
    value = environment.get('ASCEND_DEVICE_ID') or environment.get('DEVICE_ID') or '0'
    if not re.match(r'\d{1,4}$', value):
        raise OptionError(f'ASCEND_DEVICE_ID: expected a device number. Received: {value!r}')
    return value


def _limits(meta):
    if meta['choices']:
        return 'one of ' + ', '.join(filter(None, meta['choices']))
    if meta['above'] is not None:
        return 'more than {:g}'.format(meta['above'])
    if meta['high'] is not None:
        return '{:g} to {:g}'.format(meta['low'], meta['high'])
    return 'at least {:g}'.format(meta['low']) if meta['low'] is not None else ''


def _check(field, value):
    meta = field.metadata
    if type(value) is not _KINDS[field.type] and not (type(value) is int and field.type == 'float'):
        raise OptionError(f'--{field.name}: expected {_EXPECTED[field.type]}. Received: {value!r}')
    if isinstance(value, str) and '\0' in value:
        raise OptionError(f'--{field.name}: expected text without NUL. Received: {value!r}')
    if field.type == 'float' and not abs(value) < float('inf'):
        raise OptionError(f'--{field.name}: expected a finite number. Received: {value}')
    if (
        (meta['choices'] and value not in meta['choices'])
        or (meta['low'] is not None and value < meta['low'])
        or (meta['high'] is not None and value > meta['high'])
        or (meta['above'] is not None and value <= meta['above'])
    ):
        raise OptionError(f'--{field.name}: expected {_limits(meta)}. Received: {value}')


def _shown(value):
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f'{value:g}'
        if isinstance(value, float)
        else str(value)
    )


def help_text(command, intro=''):
    """What --help prints: all flags by group with default and range."""
    lines = [f'usage: python -m {command} [--flagfile=FILE] [--flag=value ...]', '', intro, '']
    for group in dict.fromkeys(field.metadata['group'] for field in FIELDS.values()):
        lines.append(group + ':')
        for field in FIELDS.values():
            if field.metadata['group'] == group:
                limits = _limits(field.metadata)
                lines.append(
                    '  --{}={}{}'.format(
                        field.name, _shown(field.default), f'  ({limits})' if limits else ''
                    )
                )
                lines.append('      ' + field.metadata['help'])
    return '\n'.join(lines)


def parse(arguments, command='trainers.run', intro=''):
    """Parses a command line (without the program's name) into Options.

    Raises:
      OptionError: unknown flag, wrong type, wrong range, unreadable flag file; one line naming
        flag, expected, received.
      HelpRequested: for --help and -h.
    """
    if any(argument in ('--help', '-help', '-h', '--helpfull') for argument in arguments):
        raise HelpRequested(help_text(command, intro))
    values = flags.FlagValues()
    for name, field in FIELDS.items():
        _DEFINE[field.type](name, field.default, field.metadata['help'], flag_values=values)
    try:
        rest = values([command] + list(arguments))
    except flags.UnrecognizedFlagError as error:
        if error.flagname in _REMOVED:
            raise OptionError(
                f'--{error.flagname}: expected {_REMOVED[error.flagname]}. Received: a removed flag'
            )
        near = difflib.get_close_matches(error.flagname, FIELDS, 1)
        raise OptionError(
            '--{}: expected a known flag{}. Received: an unknown one; --help lists all'.format(
                error.flagname, f', --{near[0]} perhaps' if near else ''
            )
        )
    except flags.IllegalFlagValueError as error:
        found = re.match(r'flag --(\w+)=(.*?): ', str(error), re.DOTALL)
        name, value = found.groups() if found else ('flag', str(error))
        kind = _EXPECTED.get(getattr(FIELDS.get(name), 'type', ''), 'a value')
        raise OptionError(f'--{name}: expected {kind}. Received: {value!r}')
    except flags.CantOpenFlagFileError as error:
        raise OptionError(f'--flagfile: expected a readable file. Received: {error}')
    except flags.Error as error:
        raise OptionError(f'flags: expected --name=value. Received: {error}')
    except (
        ValueError,
        RecursionError,
    ) as error:  # not UTF-8, a NUL in its name, hundreds of them one inside the other
        raise OptionError(f'--flagfile: expected a text file of flags. Received: {error}')
    if len(rest) > 1:
        raise OptionError(
            'arguments: expected flags only, --name=value. Received: {}'.format(' '.join(rest[1:]))
        )
    return Options(**{name: getattr(values, name) for name in FIELDS})


def markdown_table():
    """The flag table of the README; a test compares."""
    rows = ['| flag | default | what it does |', '|---|---|---|']
    for field in FIELDS.values():
        limits = _limits(field.metadata)
        rows.append(
            '| `--{}` | {} | {}{} |'.format(
                field.name,
                f'`{_shown(field.default)}`' if field.default != '' else '',
                field.metadata['help'],
                f' ({limits})' if limits else '',
            )
        )
    return '\n'.join(rows)


if __name__ == '__main__':
    print(markdown_table())
