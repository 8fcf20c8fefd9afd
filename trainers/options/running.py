"""The options for the run: measurements, checkpoints, devices, workers, output."""

from __future__ import annotations

import dataclasses
import functools
import re

from trainers.options.spec import POSITIVE, option

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
)
# An option that does not affect what is learned: a resumed run may differ.
_free = functools.partial(option, resume=True, hyperparameter=False)


@dataclasses.dataclass(frozen=True)
class Running:
    """The third part of Options."""

    evaluate: bool = option(
        True,
        'Measure at all. --noevaluate: train only, without pictures, to see the speed.',
        'measurement',
    )
    update_centers: int = option(
        1000,
        'Steps between two measurements: class means and distances of the training set, '
        'validation, checkpoint, pictures. (The centers of the loss move at every step.)',
        'measurement',
        low=1,
    )
    measure_samples: int = option(
        0,
        'Estimate the class distances of a training set of more samples than this from whole '
        'classes, evenly spaced, with at most so many together, and log the standard errors. '
        '(--center_init=means still sweeps the whole set, once.) 0: measure all.',
        'measurement',
        hyperparameter=False,
        low=0,
    )
    early_stopping: int = option(
        0,
        'Stop when --monitor has not improved for this many measurements in a row. 0: never.',
        'measurement',
        resume=True,
        low=0,
        high=10**9,
    )
    monitor: str = option(
        'valid_loss',
        'Metric that --early_stopping watches, by its name in history.jsonl.',
        'measurement',
    )
    callbacks: str = option(
        '',
        'Callbacks of your own: module:factory or file.py:factory, separated by commas. See '
        'docs/callbacks.md.',
        'measurement',
    )

    ckpt_path: str = _free(
        '',
        "Checkpoint to load: a run's folder (its best checkpoint is taken), its ckpt folder, or "
        'one checkpoint. embed and predict also take an exported model: the folder of a '
        'SavedModel, or a file .pb, .onnx or .tflite.',
        'checkpoints',
        commands=('evaluate', 'export', 'embed', 'predict'),
        required=('export', 'embed', 'predict'),
        workers=True,
    )
    resume: str = _free(
        'auto',
        "auto: continue from the newest complete checkpoint in the run's folder, if the flags "
        'agree; never: start anew, and move an earlier run aside; required: as auto, but a '
        'missing checkpoint is an error.',
        'checkpoints',
        workers=True,
        choices=('auto', 'never', 'required'),
    )
    save_every: str = _free(
        '',
        'Interval of further checkpoints, between measurements.',
        'checkpoints',
        accepts=(
            re.compile('([1-9][0-9]{0,8}s?)?').fullmatch,
            'steps, as 500, or seconds, as 300s',
        ),
    )
    keep_checkpoints: int = _free(
        3,
        'Number of newest checkpoints to keep. The best one, see --best, is kept as well.',
        'checkpoints',
        workers=True,
        low=1,
    )
    best: str = option(
        'valid_acc',
        'Metric that decides which checkpoint is kept as the best, by its name in history.jsonl.',
        'checkpoints',
        hyperparameter=False,
    )
    on_nan: str = _free(
        'stop',
        'If the loss is NaN, infinite or above --max_loss: stop; rollback, to the last '
        'checkpoint, and go on with half the learning rate.',
        'checkpoints',
        choices=('stop', 'rollback'),
    )
    max_loss: float = _free(
        0.0, 'Largest loss that is accepted, see --on_nan. 0: no bound.', 'checkpoints', low=0.0
    )

    device: str = _free(
        'auto',
        'auto: npu if ASCEND_DEVICE_ID or DEVICE_ID is set and the adapter of CANN can be '
        'imported, else gpu if TensorFlow sees one, else cpu.',
        'device',
        commands=('run', 'evaluate', 'embed', 'predict'),
        workers=True,
        choices=('auto', 'cpu', 'gpu', 'npu'),
    )
    precision: str = option(
        '',
        'fp32, or mixed: allow_mix_precision on npu; float16 on gpu, by the graph rewrite of '
        'TensorFlow, with dynamic loss scaling; on cpu a backbone in bfloat16, with TensorFlow '
        '2.x. Default: mixed on npu, else fp32. See docs/ascend.md.',
        'device',
        commands=('run', 'evaluate', 'embed', 'predict'),
        resume=True,
        choices=('', 'fp32', 'mixed'),
    )
    precision_mode: str = _free(
        '',
        'Precision mode of the NPU, instead of the one that --precision stands for. No effect '
        'on cpu and gpu.',
        'device',
        commands=('run', 'evaluate', 'embed', 'predict'),
        choices=('',) + PRECISION_MODES,
    )
    loss_scale: str = option(
        '',
        'Loss scaling. Default: dynamic for --precision=mixed on gpu, else none.',
        'device',
        resume=True,
        accepts=(
            re.compile(r'(dynamic|[1-9][0-9]{0,37}(\.[0-9]+)?)?').fullmatch,
            'a number from 1 on, or dynamic',
        ),
    )
    iterations_per_loop: int = _free(
        1,
        'Steps per call of the NPU. Must divide --steps and all intervals.',
        'device',
        low=1,
        high=10**6,
    )
    npu_option: str = _free(
        '',
        'Settings of the NPU session, key=value, separated by commas. docs/ascend.md lists them.',
        'device',
        commands=('run', 'evaluate', 'embed', 'predict'),
    )

    collective_timeout: float = _free(
        60.0,
        'Seconds without an answer of one worker after which the others stop; ten times as many '
        'at the start. Saving and drawing by the chief must take less. On NPUs, set '
        '--npu_option=hccl_timeout=SECONDS instead.',
        'workers',
        accepts=POSITIVE,
    )
    check_replicas: int = _free(
        100,
        'Steps between two comparisons of all variables across the workers. 0: never.',
        'workers',
        low=0,
        high=10**9,
    )

    exp_save_dir: str = _free(
        '',
        "The run's folder. Default: output/<ASCEND_DEVICE_ID, or 0> in the project. Nothing in "
        'it is overwritten; --resume decides what becomes of an earlier run.',
        'output',
        workers=True,
    )
    log_every: int = _free(
        100,
        'Steps between two progress lines, where stderr is not a terminal.',
        'output',
        workers=True,
        low=1,
    )
    projection: str = _free(
        'pca',
        'Pictures of embeddings with more than two dimensions: pca, the two principal axes; '
        'tsne, besides, a t-SNE of the last measurement (needs scikit-learn).',
        'output',
        workers=True,
        choices=('pca', 'tsne'),
    )
    tf_logs: bool = _free(
        False,
        'Show the log and the warnings of TensorFlow, and the traceback of an error.',
        'output',
        workers=True,
        commands=('run', 'evaluate', 'export', 'convert', 'embed', 'predict'),
    )
