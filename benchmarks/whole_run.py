"""Where the wall time of a whole run goes, and what its parts cost.

    python benchmarks/whole_run.py [--json=FILE] [--without=Class,Class] [--flag=value ...]
    python benchmarks/whole_run.py --rounds=3 --compare=TensorBoard,Pictures,Report --steps=1000
    python benchmarks/whole_run.py --rounds=5 --start [--python=INTERPRETER]

Runs `python -m trainers.run --flagfile=flags/full.cfg` (and the given flags) with timers around
every hook of a callback, every step, sweep and checkpoint. Nested times count for the inner one
only. Before and after the run, in separate processes, the bare step (the training operation alone,
nothing fetched) and the bare forward pass are measured: a lower bound of the run is its steps and,
at each measurement, a forward pass over the training and validation images. `--compare` alternates
runs with and without the named callbacks, one process each, and prints the differences of the
median wall times and of the median CPU times; the latter are more reliable on a shared machine.
`--start` prints where the time until the end of the first step goes, from the start of a process
with each interpreter in turns.
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


def _child(*arguments, python=sys.executable, **pipes):
    """The JSON that this program prints last with these arguments in a separate process, so that
    each measured run has to warm up by itself.
    """
    done = subprocess.run(
        [python, os.path.abspath(__file__), *arguments],
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
    begin = (arguments.began or BEGIN) + time.monotonic() - before
    account = Account()
    with account.of('import TensorFlow'):
        from trainers import command, options, run

        command.import_tensorflow()
    settings = options.parse(flags)
    with account.of('import the rest'):
        instrument(account, arguments.without.split(','))
    with tempfile.TemporaryDirectory() as folder:
        if run.main(flags + ['--exp_save_dir=' + os.path.join(folder, 'run')]):
            raise SystemExit('the run failed')
    result = {
        'total': time.monotonic() - begin,
        'first step': account.first_step - begin,
        'before': account.before,
        'tensorflow': command.versions()['tensorflow'],
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


def starts(arguments, rest):
    """Prints and returns the seconds until the end of the first step, of each interpreter."""
    found = {}
    for _ in range(arguments.rounds):
        for python in [sys.executable, *arguments.python]:
            flags = ['--case', f'--began={time.monotonic()}', '--steps=1', '--noevaluate', *rest]
            result = _child(*flags, python=python, stderr=subprocess.DEVNULL)
            total = result['first step']
            parts = {'*in all*': total, **result['before']}
            parts['everything else'] = 2 * total - sum(parts.values())
            found.setdefault(result['tensorflow'], []).append(parts)
    print(f'| until the end of the first step, s | {" | ".join(found)} |')
    print('|---' * (len(found) + 1) + '|')
    for name in {name: None for turns in found.values() for parts in turns for name in parts}:
        medians = [statistics.median(parts.get(name, 0) for parts in found[key]) for key in found]
        if max(medians) >= 0.005:
            print(f'| {name} | {" | ".join(format(value, ".2f") for value in medians)} |')
    for key, turns in found.items():
        print(f'{key}: {", ".join(format(parts["*in all*"], ".2f") for parts in turns)} s')
    return found


def main():
    flags = parser(__doc__)
    flags.add_argument('--json')
    flags.add_argument('--without', default='')
    flags.add_argument('--compare')
    flags.add_argument('--rounds', type=int, default=3)
    flags.add_argument('--start', action='store_true')
    flags.add_argument('--python', action='append', default=[])
    flags.add_argument('--began', type=float, help=argparse.SUPPRESS)
    flags.add_argument('--case', action='store_true', help=argparse.SUPPRESS)
    flags.add_argument('--bare', action='store_true', help=argparse.SUPPRESS)
    arguments, rest = flags.parse_known_args()
    if arguments.bare:
        from trainers import options

        print(json.dumps(_bare_here(options.parse(rest))))
        return 0
    work = starts if arguments.start else compare if arguments.compare else measure
    result = work(arguments, rest)
    if arguments.case:
        print(json.dumps(result))
    elif work is measure:
        _print(result)
    write_json(arguments.json, result)
    return 0


if __name__ == '__main__':
    sys.exit(main())
