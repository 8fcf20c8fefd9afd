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
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from account import Account, instrument
from measuring import ROOT, median_ms, parser, training_session, write_json

BEGIN = time.monotonic()
SHOWING = ('Figures', 'TensorBoard', 'Pictures', 'Report')


def _bare_here(settings):
    """[seconds of the training operation alone, seconds of a forward pass of one batch]."""
    from gitloss import data

    dataset = data.load(settings.dataset, settings.data_folder)
    with training_session(settings, dataset) as (session, net):
        images, _, _ = next(data.padded_batches(dataset.train, settings.batch_size))
        forward = session.make_callable(
            net.eval_fetches['embeddings'].op, feed_list=[net.eval_images]
        )
        return [
            median_ms(call, 40, 10) / 1e3
            for call in (session.make_callable(net.train_op), lambda: forward(images))
        ]


def _child(*arguments, **pipes):
    """The JSON that this program prints last with these arguments in a separate process, so that
    each measured run has to warm up by itself.
    """
    done = subprocess.run(
        [sys.executable, os.path.abspath(__file__), *arguments],
        stdout=subprocess.PIPE,
        check=True,
        **pipes,
    )
    return json.loads(done.stdout.decode().splitlines()[-1])


def _bound(settings, bare):
    """The lower bound of a run from measurements of `_bare_here`."""
    from gitloss import data

    step, forward = (statistics.mean(pair) for pair in zip(*bare))
    dataset = data.load(settings.dataset, settings.data_folder)
    batches = (
        -(-settings.steps // settings.update_centers)
        * settings.evaluate
        * sum(-(-len(split) // settings.batch_size) for split in (dataset.train, dataset.valid))
    )
    return {
        'bare_step': step,
        'bare_forward': forward,
        'least': settings.steps * step + batches * forward,
        'sweep_batches': batches,
    }


def measure(arguments, rest):
    """One run in this process, and its lower bound unless it is a case of --compare."""
    flags = ['--flagfile=' + os.path.join(ROOT, 'flags', 'full.cfg')] + rest
    before = time.monotonic()
    bare = [] if arguments.case else [_child('--bare', *flags)]
    begin = BEGIN + time.monotonic() - before
    account = Account()
    with account.of('import'):
        from gitloss.backend import tf
        from trainers import options, run
    settings = options.parse(flags)
    instrument(account, arguments.without.split(','))
    with tempfile.TemporaryDirectory() as folder:
        if run.main(flags + ['--exp_save_dir=' + os.path.join(folder, 'run')]):
            raise SystemExit('the run failed')
    result = {
        'total': time.monotonic() - begin,
        'first step': account.first_step - begin,
        'tensorflow': tf.__version__,
        'steps': settings.steps,
        'seconds': dict(account.seconds),
        'calls': dict(account.calls),
    }
    if bare:
        result.update(_bound(settings, bare + [_child('--bare', *flags)]))
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


def _processor_seconds():
    """CPU time of all children until now."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(arguments, rest):
    """Alternates runs with and without the callbacks of --compare. Prints and returns the times."""
    names = arguments.compare.split(',')
    found = {name: {'wall': [], 'processors': []} for name in ('with', 'without')}
    shares = []
    for number in range(arguments.rounds):
        for name in sorted(found, reverse=number % 2):  # they also take turns at being first
            without = '--without=' + (arguments.compare if name == 'without' else '')
            before = _processor_seconds()
            result = _child('--case', without, *rest, stderr=subprocess.DEVNULL)
            found[name]['processors'].append(_processor_seconds() - before)
            found[name]['wall'].append(result['total'])
            if name == 'with':
                inside = sum(result['seconds'].get(part, 0) for part in names)
                shares.append(inside / result['total'])
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
    flags = parser(__doc__)
    flags.add_argument('--json')
    flags.add_argument('--without', default='')
    flags.add_argument('--compare')
    flags.add_argument('--rounds', type=int, default=3)
    flags.add_argument('--case', action='store_true', help=argparse.SUPPRESS)
    flags.add_argument('--bare', action='store_true', help=argparse.SUPPRESS)
    arguments, rest = flags.parse_known_args()
    if arguments.bare:
        from trainers import options

        print(json.dumps(_bare_here(options.parse(rest))))
        return 0
    result = compare(arguments, rest) if arguments.compare else measure(arguments, rest)
    if arguments.case:
        print(json.dumps(result))
    elif not arguments.compare:
        _print(result)
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
