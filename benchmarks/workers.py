"""Several local workers against one: time per step, efficiency, and bytes per step against their
lower bound.

    python benchmarks/workers.py [--workers=1,2,4] [--threads=N] [--steps=40] [--rounds=3]
    [--flags="--embedding_dim=2"] [--json=FILE]
    python benchmarks/workers.py --classes=5000 --flags="--shard_classes"   # of made-up images
    python benchmarks/workers.py --model      # an estimate for 8, 64 and 512 workers, the tables of
                                              # docs/distributed.md and docs/many_classes.md

The global batch and the total number of threads are the same in every row: `threads / workers`
cores each; more workers than threads share cores. So several workers cannot be faster on one
machine, and the loss is the cost of communication: efficiency is the time of one worker divided by
that of N. Each round measures all rows, the table gives medians. Compare ratios, not milliseconds.

Bytes are those sent by all workers from the 10th step to the last, as counted by the kernel on the
loopback interface (`/proc/net/dev`; nothing else should use it). The lower bound is that of a ring:
per worker 2 (N - 1) / N of what is reduced and (N - 1) / N of what is gathered, see costs.py. With
--classes a second table has the matrix products of one worker's graph beside those of the model.
"""

import json
import os
import statistics
import sys
import tempfile
import time

import costs
from measuring import cores, parser, write_json

WARM_UP = 10


def loopback_bytes():
    with open('/proc/net/dev') as file:
        for line in file:
            if line.strip().startswith('lo:'):
                return int(line.split(':')[1].split()[0])
    raise OSError('/proc/net/dev: expected an interface lo. Received: none')


def dataset_of(settings, classes):
    """That of the flags, or a made-up one of many classes, whose network it makes known."""
    from gitloss import data

    if not classes:
        return data.load(settings.dataset, settings.data_folder)
    import many_classes

    from gitloss.backbones import BACKBONES, Backbone

    BACKBONES['made_up'] = Backbone(many_classes.features, smallest=many_classes.SIZE)
    return many_classes.dataset_of(classes)


def train(flags, report, classes):
    """One worker: the real trainer without measurements. The chief writes the report."""
    import numpy as np

    from callbacks.base import Callback
    from gitloss.backend import tf
    from trainers import devices, options
    from trainers.engine.trainer import Trainer
    from trainers.workers import engines as distribution

    settings = options.parse(flags)

    class Clock(Callback):
        def __init__(self):
            self.ends, self.bytes = [], []

        def build(self):
            self.parameters = sum(
                int(np.prod(weight.shape.as_list()))
                for weight in tf.trainable_variables()
                if not hasattr(weight, 'gitloss_shard')
            )

        def on_train_batch_end(self, batch, logs=None):
            self.ends.append(time.perf_counter())
            self.bytes.append(loopback_bytes())

    clock, device = Clock(), devices.choose(settings)
    group = distribution.choose(settings, device)
    Trainer(settings, dataset_of(settings, classes), [clock], device, group=group).fit()
    if group.is_chief:
        write_json(report, _report(clock, settings))


def _report(clock, settings):
    """What the chief measured, per step after the warm-up."""
    ends = clock.ends[WARM_UP:]
    return {
        'ms': 1e3 * statistics.median(end - start for start, end in zip(ends, ends[1:])),
        'parameters': clock.parameters,
        'batch': settings.batch_size,
        'dim': settings.embedding_dim,
        'is_sharded': settings.shard_classes,
        'bytes': (clock.bytes[-1] - clock.bytes[WARM_UP]) / float(len(ends) - 1),
    }


def measure(workers, threads, steps, flags, classes):
    from trainers import launch

    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, 'report.json')
        all_flags = [
            f'--steps={steps + WARM_UP}',
            f'--update_centers={steps + WARM_UP}',
            '--noevaluate',
            '--check_replicas=0',
            '--device=cpu',
            '--exp_save_dir=' + os.path.join(folder, 'run'),
        ] + flags
        started, own = [], os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(own)[:threads])
        try:
            launch.start(
                started,
                ['--worker=' + report, str(classes)] + all_flags,
                workers,
                folder,
                program=(os.path.abspath(__file__),),
            )
            status = launch.wait(started)
        finally:
            launch.end(started)
            os.sched_setaffinity(0, own)
        if status:
            for _, path in started[1:]:
                with open(path) as file:
                    print(path, file.read(), file=sys.stderr)
            raise RuntimeError(f'{workers} workers: expected status 0. Received: {status}')
        with open(report) as file:
            return json.load(file)


def _rows(rounds):
    """Prints the table of `rounds`, {workers: reports}. Returns its rows."""
    print(
        '| workers | ms/step | efficiency | MB/step sent | least | ratio '
        '|\n|---|---|---|---|---|---|'
    )
    rows = []
    for count, reports in rounds.items():
        one = reports[0]
        # Without shards `parameters` has those of the classes.
        case = costs.Case(
            count, one['batch'] // count, one['dim'], 0, one['parameters'], one['is_sharded']
        )
        row = {
            'workers': count,
            'ms': statistics.median(found['ms'] for found in reports),
            'bytes': statistics.median(found['bytes'] for found in reports),
            'least': count * costs.sent(case),
        }
        rows.append(row)
        row['efficiency'] = rows[0]['ms'] / row['ms']
        ratio = f'{row["bytes"] / row["least"]:.3f}' if row['least'] else ''
        print(
            f'| {count} | {row["ms"]:.0f} | {row["efficiency"]:.2f} | {row["bytes"] / 1e6:.3f} | '
            f'{row["least"] / 1e6:.3f} | {ratio} |'
        )
    return rows


def _products(counts, classes, flags):
    """Prints the matrix products of one worker's graph beside those of the model."""
    from trainers import options

    settings = options.parse(flags)
    dataset = dataset_of(settings, classes)
    print('\n| workers | MFLOP of a worker: classes | pairs | model | ratio |')
    print('|---|---|---|---|---|')
    for count in counts:
        case = costs.Case(
            count,
            settings.batch_size // count,
            settings.embedding_dim,
            classes,
            0,
            settings.shard_classes,
            settings.sample_classes,
        )
        found = costs.counted(flags, dataset, count, case.columns)['flops']
        products = [found[part] for part in costs.flops(case)]
        least = sum(costs.flops(case).values())
        values = ' | '.join(f'{value / 1e6:.3f}' for value in [*products, least])
        print(f'| {count} | {values} | {sum(products) / least:.3f} |')


def main():
    if sys.argv[1:] and sys.argv[1].startswith('--worker='):
        train(sys.argv[3:], sys.argv[1].split('=', 1)[1], int(sys.argv[2]))
        return
    flags = parser(__doc__.split('\n\n')[0])
    flags.add_argument('--workers', default='1,2,4')
    flags.add_argument('--threads', type=int, default=cores())
    flags.add_argument('--steps', type=int, default=40)
    flags.add_argument('--rounds', type=int, default=3)
    flags.add_argument('--flags', default='')
    flags.add_argument('--classes', type=int, default=0, help='of made-up images')
    flags.add_argument('--json')
    flags.add_argument('--model', action='store_true')
    asked = flags.parse_args()
    if asked.model:
        costs.print_networks()
        costs.print_classes()
        return
    own, classes = asked.flags.split(), asked.classes
    if classes:
        own = ['--model=made_up', '--git_loss_form=pairwise', '--optimizer=momentum', *own]
    rounds = {int(count): [] for count in asked.workers.split(',')}
    for _ in range(asked.rounds):
        for count, reports in rounds.items():
            reports.append(measure(count, asked.threads, asked.steps, own, classes))
    how = {'threads': asked.threads, 'steps': asked.steps, 'flags': asked.flags}
    write_json(asked.json, dict(how, rows=_rows(rounds)))
    if classes:
        _products(rounds, classes, ['--device=cpu', *own])


if __name__ == '__main__':
    main()
