"""Several local workers against one: time per step, efficiency, and bytes per step against their
lower bound.

    python benchmarks/workers.py [--workers=1,2,4] [--threads=N] [--steps=40] [--rounds=3]
    [--flags="--embedding_dim=2"] [--json=FILE]
    python benchmarks/workers.py --model      # an estimate for 8, 64 and 512 workers, the table of
                                              # docs/distributed.md

The global batch and the total number of threads are the same in every row: `threads / workers`
cores each; more workers than threads share cores. So several workers cannot be faster on one
machine, and the loss is the cost of communication: efficiency is the time of one worker divided by
that of N. Each round measures all rows, the table gives medians. Compare ratios, not milliseconds.

Bytes are those sent by all workers from the 10th step to the last, as counted by the kernel on the
loopback interface (`/proc/net/dev`; nothing else should use it). The lower bound is that of a ring:
per worker 2 (N - 1) / N of the gradients' bytes and (N - 1) / N of what is gathered, in all N times
that.
"""

import json
import os
import statistics
import sys
import tempfile
import time

from measuring import cores, parser, write_json

WARM_UP = 10


def loopback_bytes():
    with open('/proc/net/dev') as file:
        for line in file:
            if line.strip().startswith('lo:'):
                return int(line.split(':')[1].split()[0])
    raise OSError('/proc/net/dev: expected an interface lo. Received: none')


def least_bytes(workers, parameters, batch, dim):
    """The lower bound for one step of all workers. Float32 embeddings and int32 labels are
    gathered; two more floats are reduced with the gradients.
    """
    ring = 2 * (workers - 1) * 4 * (parameters + 2)
    return ring + (workers - 1) * 4 * batch * (dim + 1)


def train(flags, report):
    """One worker: the real trainer without measurements. The chief writes the report."""
    import numpy as np

    from callbacks.base import Callback
    from gitloss import data
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
                int(np.prod(weight.shape.as_list())) for weight in tf.trainable_variables()
            )

        def on_train_batch_end(self, batch, logs=None):
            self.ends.append(time.perf_counter())
            self.bytes.append(loopback_bytes())

    clock, device = Clock(), devices.choose(settings)
    group = distribution.choose(settings, device)
    Trainer(
        settings, data.load(settings.dataset, settings.data_folder), [clock], device, group=group
    ).fit()
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
        'bytes': (clock.bytes[-1] - clock.bytes[WARM_UP]) / float(len(ends) - 1),
    }


def measure(workers, threads, steps, flags):
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
                ['--worker=' + report] + all_flags,
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


def model(latency=50e-6):
    """Prints an estimate of the communication of a step, with 128 images per worker: a ring
    all-reduce takes 2 (N - 1) rounds of P / N numbers, a ring gather N - 1 rounds of one worker's
    samples. A round takes the latency plus its bytes over the bandwidth of one worker's link.
    """
    print(
        '| network | workers | link | all-reduce ms | gather ms | whole pair term, GFLOP per '
        'worker | own rows only |\n'
        '|---|---|---|---|---|---|---|'
    )
    for name, parameters, dim in (
        ('mnist_cnn, 0.29 M', 288770, 2),
        ('ResNet-50 like, 25 M', 25000000, 512),
    ):
        for workers in (8, 64, 512):
            batch = 128 * workers
            for link, bandwidth in (('10 Gbit/s', 1.25e9), ('100 Gbit/s', 12.5e9)):
                reduce = 2 * (workers - 1) * (latency + 4 * parameters / workers / bandwidth)
                gather = (workers - 1) * (latency + 4 * 128 * (dim + 1) / bandwidth)
                pairs = 4.0 * batch * batch * dim / 1e9  # two matrix products
                print(
                    f'| {name} | {workers} | {link} | {1e3 * reduce:.1f} | {1e3 * gather:.1f} | '
                    f'{pairs:.3g} | {pairs / workers:.3g} |'
                )


def _rows(rounds):
    """Prints the table of `rounds`, {workers: reports}. Returns its rows."""
    print(
        '| workers | ms/step | efficiency | MB/step sent | least | ratio '
        '|\n|---|---|---|---|---|---|'
    )
    rows = []
    for count, reports in rounds.items():
        one = reports[0]
        row = {
            'workers': count,
            'ms': statistics.median(found['ms'] for found in reports),
            'bytes': statistics.median(found['bytes'] for found in reports),
            'least': least_bytes(count, one['parameters'], one['batch'], one['dim']),
        }
        rows.append(row)
        row['efficiency'] = rows[0]['ms'] / row['ms']
        ratio = f'{row["bytes"] / row["least"]:.2f}' if row['least'] else ''
        print(
            f'| {count} | {row["ms"]:.0f} | {row["efficiency"]:.2f} | {row["bytes"] / 1e6:.2f} | '
            f'{row["least"] / 1e6:.2f} | {ratio} |'
        )
    return rows


def main():
    if sys.argv[1:] and sys.argv[1].startswith('--worker='):
        train(sys.argv[2:], sys.argv[1].split('=', 1)[1])
        return
    flags = parser(__doc__.split('\n\n')[0])
    flags.add_argument('--workers', default='1,2,4')
    flags.add_argument('--threads', type=int, default=cores())
    flags.add_argument('--steps', type=int, default=40)
    flags.add_argument('--rounds', type=int, default=3)
    flags.add_argument('--flags', default='')
    flags.add_argument('--json')
    flags.add_argument('--model', action='store_true')
    options = flags.parse_args()
    if options.model:
        model()
        return
    rounds = {int(count): [] for count in options.workers.split(',')}
    for _ in range(options.rounds):
        for count, reports in rounds.items():
            reports.append(measure(count, options.threads, options.steps, options.flags.split()))
    how = {'threads': options.threads, 'steps': options.steps, 'flags': options.flags}
    write_json(options.json, dict(how, rows=_rows(rounds)))


if __name__ == '__main__':
    main()
