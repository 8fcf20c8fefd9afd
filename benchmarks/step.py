"""Time of one training step: ours, the upstream graph, PyTorch, and the machine's matrix product as
the ceiling.

    python benchmarks/step.py --growth
    python benchmarks/step.py [--rounds=3] [--steps=60] [--peer=/path/to/python3.7] [--json=FILE]

Every contestant runs in a separate process, one after the other on the same cores, in --rounds
rounds. A round gives the median of its steps after a warm-up, the table the median of the rounds.
Compare ratios within one run, not milliseconds.

  ours        the real trainer, its data pipeline, fetches and callbacks (--noevaluate), with the
              settings of flags/full.cfg
  upstream    the published graph written naively: feed_dict, git loss by broadcasting, everything
              fetched at once
  torch       the same network, loss and optimizer in PyTorch, eager; torch_compiled: through
              torch.compile. Optional.
  sgemm       a float32 matrix product of 2048 x 2048 in TensorFlow and in PyTorch: the peak of the
              cores

`--growth` prints another table: ours over batch, embedding size and classes, in both forms of the
git loss, with the slope between neighbours and the peak memory. `--peer` adds ours and upstream on
a second interpreter, with the other TensorFlow. A step of 128 images takes 22.4 GFLOP.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GFLOP = 22.4
BATCH = 128


def _cores():
    return len(os.sched_getaffinity(0))


def median_ms(step, steps, warm_up=15):
    times = []
    for number in range(steps + warm_up):
        start = time.perf_counter()
        step()
        if number >= warm_up:
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def _ours(steps):
    import tempfile

    from callbacks.base import Callback
    from gitloss import data
    from trainers import callback_list, devices, options
    from trainers.engine.trainer import Trainer

    class Clock(Callback):
        """Measures from the end of a step to that of the next: session, callbacks, everything."""

        def __init__(self):
            self.ends = []

        def on_train_batch_end(self, batch, logs=None):
            self.ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = options.Options(
            steps=steps + 15,
            update_centers=steps + 15,
            evaluate=False,
            exp_save_dir=folder,
            device='cpu',
        )
        dataset = data.load(settings.dataset, settings.data_folder)
        clock = Clock()
        callbacks = callback_list.build_callbacks(
            settings, dataset, {'versions': {}, 'device': 'cpu'}, []
        ) + [clock]
        Trainer(settings, dataset, callbacks, devices.choose(settings)).fit()
    return statistics.median(b - a for a, b in zip(clock.ends[14:], clock.ends[15:])) * 1e3


def _network(tf, images, labels):
    """(total loss, accuracy, center update) of the published graph, the git loss by broadcasting
    as in upstream's code.
    """

    def variable(name, shape):
        return tf.get_variable(name, shape, initializer=tf.glorot_uniform_initializer())

    x, channels = images, 1
    for stage, filters in enumerate((32, 64, 128), 1):
        for part in (1, 2):
            x = tf.nn.conv2d(
                x,
                variable(f'w{stage}{part}', [3, 3, channels, filters]),
                [1, 1, 1, 1],
                'SAME',
            )
            x, channels = (
                tf.nn.relu(
                    x
                    + tf.get_variable(
                        f'b{stage}{part}', [filters], initializer=tf.zeros_initializer()
                    )
                ),
                filters,
            )
        x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], 'VALID')
    embeddings = tf.matmul(
        tf.reshape(x, [-1, 1152]), variable('w_embeddings', [1152, 2])
    ) + variable('b_embeddings', [1, 2])
    slopes = tf.get_variable('slopes', [2], initializer=tf.zeros_initializer())
    active = tf.nn.relu(embeddings) + slopes * (embeddings - tf.abs(embeddings)) * 0.5
    logits = tf.matmul(active, variable('w_logits', [2, 10])) + variable('b_logits', [1, 10])
    centers = tf.get_variable(
        'centers', [10, 2], initializer=tf.zeros_initializer(), trainable=False
    )
    rows = tf.gather(centers, labels)
    difference = (embeddings[:, None] - rows[None, :]) * (1.0 - tf.eye(BATCH))[:, :, None]
    git = tf.reduce_mean(1.0 / (1.0 + tf.square(difference)))
    _, where, counts = tf.unique_with_counts(labels)
    moves = 0.5 * (rows - embeddings) / tf.cast(1 + tf.gather(counts, where), tf.float32)[:, None]
    update = tf.scatter_sub(centers, labels, moves)
    softmax = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )
    accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), labels), tf.float32))
    return softmax + tf.reduce_mean(tf.square(embeddings - rows)) + git, accuracy, update


def _upstream(steps):
    import numpy

    # Not through gitloss.backend: TensorFlow as installed, without our settings.
    import tensorflow.compat.v1 as tf

    from gitloss import data

    with tf.Graph().as_default():
        images, labels = (
            tf.placeholder(tf.float32, [None, 28, 28, 1]),
            tf.placeholder(tf.int64, [None]),
        )
        loss, accuracy, update = _network(tf, images, labels)
        train = tf.train.AdamOptimizer(1e-3).minimize(loss)
        dataset = data.load('mnist', os.path.join(ROOT, 'data', 'mnist'))
        stream = data.BatchStream(dataset.train, BATCH, 1)
        session = tf.Session()
        session.run(tf.global_variables_initializer())
        numbers = iter(range(steps + 100))

        def step():
            pixels, classes = stream.batch(next(numbers))
            session.run(
                [train, accuracy, loss, update],
                {
                    images: pixels.astype(numpy.float32) / 255.0 - dataset.spec.preprocessing.mean,
                    labels: classes,
                },
            )

        return median_ms(step, steps)


def _torch(steps, compiled):
    import numpy
    import torch
    from torch import nn
    from torch.nn import functional

    from gitloss import data

    torch.set_num_threads(_cores())
    layers, channels = [], 1
    for filters in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1152, 2))
    head = nn.Sequential(nn.PReLU(2, 0.0), nn.Linear(2, 10))
    centers, eye = torch.zeros(10, 2), torch.eye(BATCH)
    optimizer = torch.optim.Adam(list(body.parameters()) + list(head.parameters()), 1e-3, eps=1e-8)

    def objective(pixels, classes, table):
        embeddings = body(pixels)
        rows = table[classes]
        difference = (embeddings[:, None] - rows[None, :]) * (1 - eye)[:, :, None]
        total = (
            functional.cross_entropy(head(embeddings), classes)
            + ((embeddings - rows) ** 2).mean()
            + (1 / (1 + difference**2)).mean()
        )
        return total, embeddings

    if compiled:
        objective = torch.compile(objective)
    dataset = data.load('mnist', os.path.join(ROOT, 'data', 'mnist'))
    stream = data.BatchStream(dataset.train, BATCH, 1)
    numbers = iter(range(steps + 100))

    def step():
        pixels, classes = stream.batch(next(numbers))
        pixels = (
            torch.from_numpy(pixels.astype(numpy.float32) / 255.0 - dataset.spec.preprocessing.mean)
            .permute(0, 3, 1, 2)
            .contiguous()
        )
        classes = torch.from_numpy(classes.astype(numpy.int64))
        optimizer.zero_grad(set_to_none=True)
        total, embeddings = objective(pixels, classes, centers)
        total.backward()
        optimizer.step()
        with torch.no_grad():
            counts = torch.bincount(classes, minlength=10)[classes]
            centers.index_add_(
                0, classes, -0.5 * (centers[classes] - embeddings) / (1 + counts)[:, None]
            )
        return total.item()

    return median_ms(step, steps)


def _sgemm(library):
    """The best GFLOP/s of 20 products."""
    size, best = 2048, float('inf')
    if library == 'torch':
        import torch

        torch.set_num_threads(_cores())
        a, b = torch.rand(size, size), torch.rand(size, size)
        product = lambda: a @ b  # noqa: E731
    else:
        from gitloss.backend import tf

        with tf.Graph().as_default():
            a, b = (tf.get_variable(name, [size, size], use_resource=True) for name in 'ab')
            session = tf.Session(
                config=tf.ConfigProto(
                    intra_op_parallelism_threads=_cores(), inter_op_parallelism_threads=1
                )
            )
            session.run(tf.global_variables_initializer())
            product = session.make_callable(tf.matmul(a, b).op)
    for _ in range(20):
        start = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best / 1e9


@contextlib.contextmanager
def training_session(settings, dataset):
    """(session, TrainingGraph) of a run at its first step, without trainer and callbacks."""
    from gitloss.backend import tf
    from trainers import devices
    from trainers.engine.graph import TrainingGraph

    device = devices.choose(settings)
    with tf.Graph().as_default():
        net = TrainingGraph(settings, dataset.spec, device, source=dataset.train)
        initial = tf.global_variables_initializer()
        with tf.Session(config=device.config) as session:
            session.run(initial)
            session.run(net.iterator.initializer, {net.first_step: 0})
            yield session, net


def _grown(form, batch, dim, classes):
    """(ms, peak MiB above the idle process) of a training step on random images."""
    import numpy

    from gitloss import data
    from trainers import options

    random = numpy.random.RandomState(0)
    source = data.ArraySource(
        random.randint(0, 256, (2 * batch, 28, 28, 1)).astype(numpy.uint8),
        random.randint(0, classes, 2 * batch).astype(numpy.int32),
    )
    dataset = data.Dataset(data.DataSpec('random', source.image_shape, classes), source)
    settings = options.Options(
        batch_size=batch, embedding_dim=dim, git_loss_form=form, device='cpu'
    )
    with open('/proc/self/status') as file:
        idle = int(dict(line.split(':', 1) for line in file)['VmRSS'].split()[0])
    with training_session(settings, dataset) as (session, net):
        ms = median_ms(session.make_callable(net.train_op), 10, 3)
    with open('/proc/self/status') as file:
        return ms, (
            int(dict(line.split(':', 1) for line in file)['VmHWM'].split()[0]) - idle
        ) / 1024.0


def growth():
    """Prints the table of --growth: one row per value of one of the three, the others as in
    flags/full.cfg.
    """
    import math

    print(
        '| | | elementwise, ms/step | grows as | peak memory, MiB | pairwise, ms/step | grows as '
        '| peak memory, MiB |'
    )
    print('|---|---|---|---|---|---|---|---|')
    usual = {'batch': BATCH, 'dim': 2, 'classes': 10}
    for name, values in (
        ('batch', (32, 64, 128, 256, 512, 1024)),
        ('dim', (2, 8, 32, 128, 512)),
        ('classes', (10, 1000, 100000, 1000000)),
    ):
        before = {}
        for value in values:
            size, cells = dict(usual, **{name: value}), []
            for form in ('elementwise', 'pairwise'):
                result, failure = _run(
                    sys.executable,
                    'grown',
                    0,
                    [form] + [str(size[key]) for key in ('batch', 'dim', 'classes')],
                )
                ms, mib = result or (float('nan'), float('nan'))
                last = before.get(form)
                slope = (
                    f'{name}^{math.log(ms / last[1]) / math.log(value / last[0]):.2f}'
                    if last and result
                    else ''
                )
                cells += [failure or f'{ms:.1f}', slope, f'{mib:.0f}' if result else '']
                before[form] = (value, ms) if result else None
            print(f'| {name} | {value:,} | {" | ".join(cells)} |', flush=True)


CONTESTANTS = {
    'ours': _ours,
    'upstream': _upstream,
    'torch': lambda steps: _torch(steps, False),
    'torch_compiled': lambda steps: _torch(steps, True),
    'sgemm_tensorflow': lambda steps: _sgemm('tensorflow'),
    'sgemm_torch': lambda steps: _sgemm('torch'),
}


def _run(python, name, steps, size=()):
    result = subprocess.run(
        [python, os.path.abspath(__file__), '--case', name, '--steps', str(steps), '--size', *size],
        capture_output=True,
        encoding='utf-8',
    )
    if result.returncode:
        return None, (result.stderr.strip().splitlines() or ['no message'])[-1]
    return json.loads(result.stdout.strip().splitlines()[-1]), None


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=60)
    parser.add_argument('--peer')
    parser.add_argument('--json')
    parser.add_argument('--growth', action='store_true')
    parser.add_argument('--case', help=argparse.SUPPRESS)
    parser.add_argument('--size', nargs='*', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.growth:
        return growth()
    if arguments.case:
        sys.path.insert(0, ROOT)
        if arguments.case == 'grown':
            print(json.dumps(_grown(arguments.size[0], *map(int, arguments.size[1:]))))
            return 0
        print(json.dumps(CONTESTANTS[arguments.case](arguments.steps)))
        return 0
    runs = [(sys.executable, name, name) for name in CONTESTANTS]
    if arguments.peer:
        runs += [
            (arguments.peer, name, name + ' (peer)')
            for name in ('ours', 'upstream', 'sgemm_tensorflow')
        ]
    seen = {label: [] for _, _, label in runs}
    for number in range(arguments.rounds):
        for python, name, label in runs:
            value, failure = _run(python, name, arguments.steps)
            if failure:
                print(f'{label}: not run: {failure}', file=sys.stderr)
            else:
                seen[label].append(value)
            print(
                f'round {number + 1}  {label:<26} {"-" if failure else f"{value:.1f}"}',
                file=sys.stderr,
                flush=True,
            )
    medians = {label: statistics.median(values) for label, values in seen.items() if values}
    ceiling = max(value for label, value in medians.items() if label.startswith('sgemm'))
    print(
        f'| | ms/step | images/s | GFLOP/s | of the best sgemm ({ceiling:.0f} GFLOP/s) | ours is '
        'faster by |\n|---|---|---|---|---|---|'
    )
    for label, value in medians.items():
        if not label.startswith('sgemm'):
            own = medians['ours (peer)' if label.endswith('(peer)') else 'ours']
            speed = GFLOP / value * 1e3
            print(
                f'| {label} | {value:.1f} | {BATCH / value * 1e3:.0f} | {speed:.0f} | '
                f'{100 * speed / ceiling:.0f} % | {value / own:.2f}x |'
            )
    for label, value in medians.items():
        if label.startswith('sgemm'):
            print(f'| {label} | | | {value:.0f} | {100 * value / ceiling:.0f} % | |')
    if arguments.json:
        with open(arguments.json, 'w') as file:
            json.dump({'medians': medians, 'rounds': seen}, file, indent=1)
    return 0


if __name__ == '__main__':
    sys.exit(main())
