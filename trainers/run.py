"""python -m trainers.run --flagfile=flags/full.cfg: trains Git loss. Wiring only."""

from __future__ import annotations

import logging
import os
import platform
import signal
import subprocess
import sys
import time

from trainers import launch
from trainers import options as options_module

log = logging.getLogger('gitloss')
_START = time.monotonic()
_INTRO = (
    'Trains discriminative embeddings with softmax, center loss and git loss. Everything is '
    'written to output/<device id>/, or to --exp_save_dir.'
)


def versions():
    """What makes a run: interpreter, libraries, machine, and the commit if the project is a git
    checkout.
    """
    import numpy

    import gitloss
    from gitloss.backend import tf

    try:
        commit = (
            subprocess.run(
                ['git', '-C', options_module.ROOT, 'rev-parse', 'HEAD'],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=5,
                check=True,
            )
            .stdout.decode()
            .strip()
        )
    except (OSError, subprocess.SubprocessError):
        commit = None
    return {
        'gitloss': gitloss.__version__,
        'python': platform.python_version(),
        'tensorflow': tf.__version__,
        'numpy': numpy.__version__,
        'machine': platform.machine(),
        'commit': commit,
    }


def build_callbacks(options, dataset, facts, header, rank=0):
    """The callbacks of a run, in the order in which they see each measurement: who measures, who
    watches, who writes, who draws.
    """
    from callbacks.centers import CenterMeasurement
    from callbacks.checkpoint import Checkpoint
    from callbacks.early_stopping import EarlyStopping
    from callbacks.evaluation import Evaluation
    from callbacks.figures import Figures
    from callbacks.guards import LossGuard
    from callbacks.history import History
    from callbacks.pictures import Pictures
    from callbacks.progress import Progress
    from callbacks.report import Report
    from callbacks.tensorboard import TensorBoard
    from trainers import plugins

    guard = LossGuard(options.max_loss, options.on_nan == 'rollback')
    history = History(facts, options.best, _START)
    figures = None
    if options.evaluate:
        centers = CenterMeasurement(
            dataset.train, options.center_init, options.reset_centers, options.distance
        )
        evaluation = Evaluation(dataset.valid, final_source=dataset.test)
        figures = Figures(evaluation, centers)
    made_by = dict(facts['versions'], device=facts['device'])
    log_file = 'train_{}{}.log'.format(
        options_module.device_id(), '.worker%d' % rank if rank else ''
    )
    sunk = options.iterations_per_loop
    writers = [
        Progress(options.log_every, log_file, header),
        history,
        TensorBoard(
            log_every=-(-20 // sunk) * sunk,
            figures=figures,
            facts={'versions': made_by},
            hparams=options.hyperparameters(),
        ),
    ]
    extra = plugins.load(options.callbacks, options)
    if options.early_stopping:
        extra.append(EarlyStopping(options.monitor, options.early_stopping))
    if not options.evaluate:
        return [guard] + extra + writers + [Checkpoint()]
    # The checkpoint comes last: a run that is killed before it makes all of the measurement again.
    return (
        [guard, centers, evaluation]
        + extra
        + [figures]
        + writers
        + [Pictures(figures, history, options.projection), Checkpoint(), Report()]
    )


def train(options):
    """Loads, trains, finishes. Returns the exit status."""
    from gitloss import data
    from trainers import devices
    from trainers.engine.trainer import Trainer
    from trainers.workers import engines as distribution

    dataset = data.load(options.dataset, options.data_folder)
    dataset.require('train', *(['valid'] if options.evaluate else []))
    device = devices.choose(options)
    group = distribution.choose(options, device)
    made_by = versions()
    facts = {
        'network': options.model,
        'options': options.as_dict(),
        'versions': made_by,
        'device': device.name,
    }
    counts = [
        f'{0 if split is None else len(split)} {name}'
        for split, name in zip(dataset[1:], ('training', 'validation', 'test'))
    ]
    header = [
        'Git loss {}, Python {}, TensorFlow {}, device {} ({})'.format(
            made_by['gitloss'], made_by['python'], made_by['tensorflow'], device.name, device.reason
        ),
        f'{dataset.spec.name}: {", ".join(counts)} images of '
        f'{"x".join(map(str, dataset.spec.image_shape))}, {dataset.spec.num_classes} classes; '
        f'{options.model}, {options.embedding_dim}-dimensional embeddings',
    ]
    if (
        device.name == 'npu'
        and device.mixed
        and options.optimizer == 'adam'
        and options.adam_epsilon < 6e-8
    ):
        header.append(
            f'warning: --adam_epsilon={options.adam_epsilon:g} is 0 in float16: an update may divide by 0; 1e-4 is advised'
        )
    if group.size > 1:
        header.append(
            'worker %d of %d, %d images of each batch of %d'
            % (group.rank, group.size, options.batch_size // group.size, options.batch_size)
        )
    trainer = Trainer(
        options,
        dataset,
        build_callbacks(options, dataset, facts, header, group.rank),
        device,
        made_by,
        group,
    )
    trainer.fit()
    return 1 if trainer.failures else 0


def main(arguments=None, command='trainers.run', intro=_INTRO, work=train):
    """Parses, works, and turns every mistake of the user into one line and a status: 2 before the
    training, 1 in it.
    """
    try:
        options = options_module.parse(
            sys.argv[1:] if arguments is None else arguments, command, intro
        )
    except options_module.HelpRequested as text:
        print(text)
        return 0
    except ValueError as error:
        sys.stderr.write(
            f'{command}: {error}\n'
        )  # print() writes the newline apart, after another worker's line
        return 2
    if options.tf_logs:
        os.environ['GITLOSS_TF_LOGS'] = '1'
    launch.follow()
    logging.raiseExceptions = (
        False  # a full disk must not print a traceback for every line of the log file
    )
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        from callbacks.progress import ConsoleHandler

        log.handlers = [ConsoleHandler()]
        return work(options)
    except (ValueError, OSError, RuntimeError, ArithmeticError, MemoryError) as error:
        if options.tf_logs:
            raise
        log.error(
            '%s: %s', command, str(error).splitlines()[0] if str(error) else type(error).__name__
        )
        return 2 if isinstance(error, (ValueError, OSError)) else 1
    except (
        KeyboardInterrupt
    ) as error:  # the trainer's Interrupted is one too, and says which signal it was
        log.error('%s: %s', command, str(error) or 'stopped by SIGINT')
        return 128 + getattr(error, 'signum', signal.SIGINT)


if __name__ == '__main__':
    sys.exit(main())
