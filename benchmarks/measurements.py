"""Measurements of a run beside their forward passes alone, without start and end of the run.

    python benchmarks/measurements.py [--measurements=3] [--json=FILE] [--flag=value ...]

Runs `python -m trainers.run --flagfile=flags/full.cfg` (and the given flags) with a few steps
before each measurement, and timers around every hook of a callback, sweep and checkpoint. After
each measurement come as many bare forward passes as it has batches of training and validation
images: the embeddings of one batch in memory, nothing fetched. So both meet the same state of the
machine. The first measurement also imports Matplotlib.
"""

import collections
import os
import statistics
import sys
import tempfile
import time

from account import Account, instrument
from measuring import ROOT, parser, write_json

STEPS = 5  # before each measurement


def _bare_passes(runtime, sources):
    """Seconds of the forward passes over the sources."""
    from gitloss import data

    images, _, _ = next(data.padded_batches(sources[0], runtime.batch_size))
    forward = runtime.session.make_callable(
        runtime.net.eval_fetches['embeddings'].op, feed_list=[runtime.net.eval_images]
    )
    forward(images)  # the first call prepares it
    start = time.perf_counter()
    for _ in range(sum(-(-len(source) // runtime.batch_size) for source in sources)):
        forward(images)
    return time.perf_counter() - start


def _instrument_measurements(account, sources, found):
    """Appends {'measurement', 'bare', 'parts'}, seconds, of each measurement to `found`."""
    from callbacks.list import CallbackList

    run = CallbackList.run

    def timed(callbacks, hook, *args):
        if hook != 'on_epoch_end':
            return run(callbacks, hook, *args)
        before, start = collections.Counter(account.seconds), time.perf_counter()
        run(callbacks, hook, *args)
        seconds = time.perf_counter() - start
        parts = account.seconds - before
        bare = _bare_passes(callbacks.callbacks[0].handle, sources)
        found.append({'measurement': seconds, 'bare': bare, 'parts': dict(parts)})

    CallbackList.run = timed


def measure(count, rest):
    """The result of `_instrument_measurements` for `count` measurements of a run."""
    from gitloss import data
    from trainers import options, run

    flags = ['--flagfile=' + os.path.join(ROOT, 'flags', 'full.cfg')] + rest
    flags += [f'--steps={STEPS * count}', f'--update_centers={STEPS}']
    settings, account, found = options.parse(flags), Account(), []
    dataset = data.load(settings.dataset, settings.data_folder)
    instrument(account, ())
    _instrument_measurements(account, (dataset.train, dataset.valid), found)
    with tempfile.TemporaryDirectory() as folder:
        if run.main(flags + ['--exp_save_dir=' + os.path.join(folder, 'run')]):
            raise SystemExit('the run failed')
    return found


def main():
    flags = parser(__doc__)
    flags.add_argument('--measurements', type=int, default=3)
    flags.add_argument('--json')
    arguments, rest = flags.parse_known_args()
    found = measure(arguments.measurements, rest)
    print('| | measurement, s | bare forward passes, s | ratio | parts, s |\n|---|---|---|---|---|')
    for number, one in enumerate(found, 1):
        parts = collections.Counter(one['parts']).most_common()
        shown = ', '.join(f'{name} {seconds:.2f}' for name, seconds in parts if seconds >= 0.005)
        ratio = one['measurement'] / one['bare']
        print(
            f'| {number} | {one["measurement"]:.2f} | {one["bare"]:.2f} | {ratio:.3f} | {shown} |'
        )
    ratios = [one['measurement'] / one['bare'] for one in found[1:]]
    if ratios:
        print(f'after the first, by the median: {statistics.median(ratios):.3f}')
    write_json(arguments.json, found)
    return 0


if __name__ == '__main__':
    sys.exit(main())
