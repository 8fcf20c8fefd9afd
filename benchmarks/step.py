"""Time of one training step: ours, the upstream graph, PyTorch, and the machine's matrix product as
the ceiling.

    python benchmarks/step.py --growth
    python benchmarks/step.py [--rounds=3] [--steps=60] [--peer=/path/to/python3.7] [--json=FILE]
    python benchmarks/step.py --precision=mixed [--model=mobilefacenet] [--rounds=3] [--steps=60]
    python benchmarks/step.py --model=mobilefacenet [--rounds=3] [--steps=60] [--peer=...]

Every contestant runs in a separate process, one after the other on the same cores, in --rounds
rounds. A round gives the median of its steps after a warm-up, the table the median of the rounds.
Compare ratios within one run, not milliseconds.

  ours        the real trainer, its data pipeline, fetches and callbacks (--noevaluate), with the
              settings of flags/full.cfg
  ours_bare   its training operation alone, without fetches and callbacks
  upstream    the published graph written naively: feed_dict, git loss by broadcasting, everything
              fetched at once
  torch       the same network, loss and optimizer in PyTorch, eager; torch_compiled: through
              torch.compile. Optional.
  product     a matrix product of 2048 x 2048 in TensorFlow and in PyTorch: the peak of the cores

`--precision=mixed` compares bfloat16: ours in mixed precision and in float32, PyTorch's autocast
with contiguous and with channels_last images, and products in bfloat16.

`--model` is mobilefacenet, an iresnet or inception_resnet_v1, beside the same network in PyTorch
(contiguous and channels_last): 32 images of 112 x 112 pixels, forward, backward and optimizer.

`--growth` prints another table: ours over batch, embedding size and classes, in both forms of the
git loss, with the slope between neighbours and the peak memory. `--peer` adds ours and upstream on
a second interpreter, with the other TensorFlow. A step of 128 images takes 22.4 GFLOP.
"""

import argparse
import json
import math
import statistics
import sys

import face_networks
from contestants import BATCH, CONTESTANTS, IN_BFLOAT16
from measuring import median_ms, memory_mib, parser, run_case, training_session, write_json

GFLOP = 22.4
USUAL = {'batch': BATCH, 'dim': 2, 'classes': 10}
GROWN = {
    'batch': (32, 64, 128, 256, 512, 1024),
    'dim': (2, 8, 32, 128, 512),
    'classes': (10, 1000, 100000, 1000000),
}


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
    idle = memory_mib()[1]
    with training_session(settings, dataset) as (session, net):
        ms = median_ms(session.make_callable(net.train_op), 10, 3)
    return ms, memory_mib()[0] - idle


def _growth_cells(name, value, form, before):
    """The three cells of one form. Updates `before`, {form: (value, ms)} of the row above."""
    size = dict(USUAL, **{name: value})
    result, failure = run_case(__file__, '--case=grown', '--size', form, *size.values())
    last = before.pop(form, None)
    if failure:
        return [failure, '', '']
    ms, mib = result
    before[form] = value, ms
    slope = f'{name}^{math.log(ms / last[1]) / math.log(value / last[0]):.2f}' if last else ''
    return [f'{ms:.1f}', slope, f'{mib:.0f}']


def growth():
    """Prints the table of --growth: one row per value of one of the three, the others as in
    flags/full.cfg.
    """
    print(
        '| | | elementwise, ms/step | grows as | peak memory, MiB | pairwise, ms/step | grows as '
        '| peak memory, MiB |\n|---|---|---|---|---|---|---|---|'
    )
    for name, values in GROWN.items():
        before = {}
        for value in values:
            cells = [
                cell
                for form in ('elementwise', 'pairwise')
                for cell in _growth_cells(name, value, form, before)
            ]
            print(f'| {name} | {value:,} | {" | ".join(cells)} |', flush=True)


def _contestants(arguments):
    in_bfloat16 = arguments.precision == 'mixed'
    if arguments.model != 'mnist_cnn':
        return face_networks.contestants(arguments.model, in_bfloat16)
    return IN_BFLOAT16 if in_bfloat16 else CONTESTANTS


def _measured(arguments):
    """{label: a number of each round} of all contestants that run."""
    names = _contestants(arguments)
    runs = [(sys.executable, name, name) for name in names]
    if arguments.peer:
        runs += [(arguments.peer, name, name + ' (peer)') for name in names if 'torch' not in name]
    seen = {label: [] for _, _, label in runs}
    for number in range(arguments.rounds):
        for python, name, label in runs:
            case = [f'--case={name}', f'--steps={arguments.steps}', f'--model={arguments.model}']
            case.append(f'--precision={arguments.precision}')
            value, failure = run_case(__file__, *case, python=python)
            if failure:
                print(f'{label}: not run: {failure}', file=sys.stderr)
            else:
                seen[label].append(value)
            shown = '-' if failure else f'{value:.1f}'
            print(f'round {number + 1}  {label:<26} {shown}', file=sys.stderr, flush=True)
    return seen


def _print(medians):
    ceiling = max(value for label, value in medians.items() if label.startswith('product'))
    print(
        f'| | ms/step | images/s | GFLOP/s | of the best product ({ceiling:.0f} GFLOP/s) | ours is '
        'faster by |\n|---|---|---|---|---|---|'
    )
    for label, value in medians.items():
        if not label.startswith('product'):
            own = medians.get('ours (peer)' if label.endswith('(peer)') else 'ours')
            speed, faster = GFLOP / value * 1e3, f'{value / own:.2f}x' if own else ''
            print(
                f'| {label} | {value:.1f} | {BATCH / value * 1e3:.0f} | {speed:.0f} | '
                f'{100 * speed / ceiling:.0f} % | {faster} |'
            )
    for label, value in medians.items():
        if label.startswith('product'):
            print(f'| {label} | | | {value:.0f} | {100 * value / ceiling:.0f} % | |')


def _print_faces(medians):
    print('| | ms/step | images/s | ours is faster by |\n|---|---|---|---|')
    for label, value in medians.items():
        speed, factor = face_networks.BATCH / value * 1e3, value / medians['ours']
        print(f'| {label} | {value:.1f} | {speed:.1f} | {factor:.2f}x |')


def main():
    flags = parser(__doc__)
    flags.add_argument('--rounds', type=int, default=3)
    flags.add_argument('--steps', type=int, default=60)
    flags.add_argument('--model', default='mnist_cnn')
    flags.add_argument('--precision', default='fp32', choices=('fp32', 'mixed'))
    flags.add_argument('--peer')
    flags.add_argument('--json')
    flags.add_argument('--growth', action='store_true')
    flags.add_argument('--case', help=argparse.SUPPRESS)
    flags.add_argument('--size', nargs='*', help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    if arguments.growth:
        growth()
    elif arguments.case == 'grown':
        form, *sizes = arguments.size
        print(json.dumps(_grown(form, *map(int, sizes))))
    elif arguments.case:
        print(json.dumps(_contestants(arguments)[arguments.case](arguments.steps)))
    else:
        seen = _measured(arguments)
        medians = {label: statistics.median(values) for label, values in seen.items() if values}
        (_print if arguments.model == 'mnist_cnn' else _print_faces)(medians)
        write_json(arguments.json, {'medians': medians, 'rounds': seen})
    return 0


if __name__ == '__main__':
    sys.exit(main())
