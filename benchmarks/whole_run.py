"""Where the wall time of a whole run goes, and what its parts cost.

    python benchmarks/whole_run.py [--json=FILE] [--without=Class,Class] [--flag=value ...]
    python benchmarks/whole_run.py --rounds=3 --compare=TensorBoard,Pictures,Report --steps=1000

Runs `python -m trainers.run --flagfile=flags/full.cfg` (and the given flags) with timers around
every hook of a callback, every step, sweep and checkpoint. Nested times count for the inner one
only. Before and after the run, in separate processes, the bare step (the training operation alone,
nothing fetched) and the bare forward pass are measured: a lower bound of the run is its steps and,
at each measurement, a forward pass over the training and validation images. `--compare` alternates
runs with and without the named callbacks, one process each, and prints the differences of the
median wall times and of the median CPU times; the latter are more reliable on a shared machine.
"""

import argparse
import collections
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

BEGIN = time.monotonic()
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HOOKS = (
    'build',
    'fetches',
    'on_train_begin',
    'on_train_batch_begin',
    'on_train_batch_end',
    'on_epoch_begin',
    'on_test_begin',
    'on_epoch_end',
    'on_rewind',
    'on_train_end',
    'close',
    'state',
    'load_state',
)
SHOWING = ('Figures', 'TensorBoard', 'Pictures', 'Report')


class Account:
    """Seconds by name; the time of an inner name does not count for the outer one."""

    def __init__(self):
        self.seconds, self.calls = collections.Counter(), collections.Counter()
        self._inner = [0.0]

    @contextlib.contextmanager
    def of(self, name):
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] += elapsed - self._inner.pop()
            self.calls[name] += 1
            self._inner[-1] += elapsed

    def around(self, owner, attribute, name):
        function = getattr(owner, attribute)

        def timed(*args, **keywords):
            with self.of(name):
                return function(*args, **keywords)

        setattr(owner, attribute, timed)


def _bare_here(settings):
    """[seconds of the training operation alone, seconds of a forward pass of one batch]."""
    import step as step_benchmark

    from gitloss import data

    dataset = data.load(settings.dataset, settings.data_folder)
    with step_benchmark.training_session(settings, dataset) as (session, net):
        images, _, _ = next(data.padded_batches(dataset.train, settings.batch_size))
        forward = session.make_callable(
            net.eval_fetches['embeddings'].op, feed_list=[net.eval_images]
        )
        return [
            step_benchmark.median_ms(call, 40, 10) / 1e3
            for call in (session.make_callable(net.train_op), lambda: forward(images))
        ]


def _bare(flags):
    """The same in a separate process, so that the measured run has to warm up by itself."""
    done = subprocess.run(
        [sys.executable, os.path.abspath(__file__), '--bare'] + flags,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.decode().splitlines()[-1])


def _instrument(account, without, first):
    from gitloss import data
    from trainers import callback_list, checkpoints
    from trainers.engine.runtime import Runtime
    from trainers.engine.trainer import Trainer

    build_callbacks = callback_list.build_callbacks

    def build(*args):
        chosen = [one for one in build_callbacks(*args) if type(one).__name__ not in without]
        for one in chosen:
            for hook in HOOKS:
                account.around(one, hook, type(one).__name__)
        return chosen

    callback_list.build_callbacks = build
    account.around(data, 'load', 'load the data')
    for name, label in (
        ('build', 'build the graph'),
        ('initialise', 'start the session'),
        ('train_step', "steps, the trainer's part"),
    ):
        account.around(Trainer, name, label)
    account.around(checkpoints.CheckpointStore, 'save', 'Checkpoint')
    sweep, initialise, step = Runtime.sweep, Trainer.initialise, Trainer.train_step

    def timed_sweep(handle, source, with_losses=False):
        walk = sweep(handle, source, with_losses)
        while True:
            with account.of('sweeps'):
                batch = next(walk, None)
            if batch is None:
                return
            yield batch

    Runtime.sweep = timed_sweep

    def timed_session(trainer):
        initialise(trainer)
        session = trainer.runtime.session
        run = session.run

        def timed(*args, **keywords):
            with (
                account.of('steps, in TensorFlow')
                if account.inside_step
                else contextlib.nullcontext()
            ):
                return run(*args, **keywords)

        session.run = timed

    def timed_step(trainer):
        account.inside_step = True
        try:
            step(trainer)
        finally:
            account.inside_step = False
        first.setdefault('step', time.monotonic())

    Trainer.initialise, Trainer.train_step = timed_session, timed_step


def measure(arguments, rest):
    flags = ['--flagfile=' + os.path.join(ROOT, 'flags', 'full.cfg')] + rest
    before = time.monotonic()
    bare = [] if arguments.case else [_bare(flags)]
    begin = BEGIN + time.monotonic() - before
    account, first = Account(), {}
    account.inside_step = False
    with account.of('import'):
        from gitloss import data
        from gitloss.backend import tf
        from trainers import options, run  # noqa: F401
    settings = options.parse(flags)
    without = [name for name in arguments.without.split(',') if name]
    _instrument(account, without, first)
    with tempfile.TemporaryDirectory() as folder:
        if run.main(flags + ['--exp_save_dir=' + os.path.join(folder, 'run')]):
            raise SystemExit('the run failed')
    total = time.monotonic() - begin
    bare += [] if arguments.case else [_bare(flags)]
    result = {
        'total': total,
        'first step': first['step'] - begin,
        'tensorflow': tf.__version__,
        'steps': settings.steps,
        'seconds': dict(account.seconds),
        'calls': dict(account.calls),
    }
    if bare:
        step, forward = (statistics.mean(pair) for pair in zip(*bare))
        dataset = data.load(settings.dataset, settings.data_folder)
        batches = (
            -(-settings.steps // settings.update_centers)
            * settings.evaluate
            * sum(-(-len(split) // settings.batch_size) for split in (dataset.train, dataset.valid))
        )
        result.update(
            bare_step=step,
            bare_forward=forward,
            least=settings.steps * step + batches * forward,
            sweep_batches=batches,
        )
    return result


def _print(result):
    total = result['total']
    print(
        f'TensorFlow {result["tensorflow"]}: {result["steps"]} steps, {total:.0f} s in all, '
        f'{result["first step"]:.1f} s to the first step'
    )
    print(
        f'bare step {result["bare_step"] * 1e3:.1f} ms, bare forward pass '
        f'{result["bare_forward"] * 1e3:.1f} ms: {result["steps"]} steps and '
        f'{result["sweep_batches"]} batches of training and validation images take '
        f'{result["least"]:.0f} s at least'
    )
    print(f'the run took {total / result["least"]:.3f} times that\n')
    print('| part | seconds | share of the run |\n|---|---|---|')
    seconds = collections.Counter(result['seconds'])
    seconds['everything else'] = total - sum(seconds.values())
    for name, value in seconds.most_common():
        print(f'| {name} | {value:.2f} | {100 * value / total:.2f} % |')
    for name, parts in (
        ('TensorBoard, pictures and report together', SHOWING),
        ('checkpoints', ('Checkpoint',)),
    ):
        together = sum(seconds[part] for part in parts)
        print(f'| *{name}* | {together:.2f} | {100 * together / total:.2f} % |')


def compare(arguments, rest):
    found = {name: {'wall': [], 'processors': []} for name in ('with', 'without')}
    shares = []
    for number in range(arguments.rounds):
        for name in sorted(found, reverse=number % 2):  # they also take turns at being first
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [
                    sys.executable,
                    os.path.abspath(__file__),
                    '--case',
                    '--without=' + (arguments.compare if name == 'without' else ''),
                ]
                + rest,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            result = json.loads(done.stdout.decode().splitlines()[-1])
            found[name]['wall'].append(result['total'])
            if name == 'with':
                shares.append(
                    sum(result['seconds'].get(part, 0) for part in arguments.compare.split(','))
                    / result['total']
                )
            found[name]['processors'].append(
                after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            )
            times = [f'{kind} {values[-1]:.1f} s' for kind, values in found[name].items()]
            print(f'{name:<8} {", ".join(times)}', file=sys.stderr, flush=True)
    for kind in ('wall', 'processors'):
        everything, less = (statistics.median(found[name][kind]) for name in ('with', 'without'))
        print(
            f'{kind}: {everything:.1f} s with {arguments.compare}, {less:.1f} s without: they '
            f'cost {100 * (everything / less - 1):.2f} %'
        )
    print(f'by the clock around their hooks: {100 * statistics.median(shares):.2f} %')
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--json')
    parser.add_argument('--without', default='')
    parser.add_argument('--compare')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--case', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--bare', action='store_true', help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args()
    sys.path.insert(0, ROOT)
    if arguments.bare:
        from trainers import options

        print(json.dumps(_bare_here(options.parse(rest))))
        return 0
    result = compare(arguments, rest) if arguments.compare else measure(arguments, rest)
    if arguments.case:
        print(json.dumps(result))
    elif not arguments.compare:
        _print(result)
    if arguments.json:
        with open(arguments.json, 'w') as file:
            json.dump(result, file, indent=1)
    return 0


if __name__ == '__main__':
    sys.exit(main())
