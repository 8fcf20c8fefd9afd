"""Latency of exported models at batch 1 and 64, beside the session of the trainer.

    python benchmarks/export.py --ckpt_path=output/0 --turns=5

Exports the checkpoint in all formats into a temporary folder. Each turn measures every format and
the trainer's own session, one after the other, in this process; the ratio of a format is the median
over the turns of its time through that of the session in the same turn. Below 1 it is faster.
"""

import json
import os
import statistics
import tempfile

import numpy as np
from measuring import median_ms, parser, write_json

BATCHES = (1, 64)


def own_session(checkpoint, batch, stack):
    """A function of images: the network of the checkpoint, as trainers.embed runs it."""
    from trainers import checkpoints, devices
    from trainers.engine.embedding import embedder

    device = devices.choose(checkpoints.options_of(checkpoint))
    network = stack.enter_context(embedder(checkpoint, device, batch))
    return lambda images: network.values(['embeddings'], images)


def exported(path, batch, stack):
    from trainers.exporting.runtimes import open_model

    model = stack.enter_context(open_model(path, batch))
    return lambda images: model(['embeddings'], images)


def measured(functions, images, turns, calls):
    """{name: [milliseconds a call, in each turn]}."""
    times = {name: [] for name in functions}
    for _ in range(turns):
        for name, run in functions.items():
            times[name].append(median_ms(lambda run=run: run(images), calls, warm_up=3))
    return times


def of_batch(checkpoint, folder, batch, arguments):
    """{name: [milliseconds]} at a batch; a frozen graph has one batch, and is exported for it."""
    import contextlib

    from trainers import export
    from trainers.exporting.formats import FORMATS

    flags = [f'--ckpt_path={arguments.ckpt_path}', f'--export_dir={folder}', '--format=all']
    assert export.main([*flags, f'--export_batch={batch}']) == 0
    with contextlib.ExitStack() as stack:
        functions = {'session': own_session(checkpoint, batch, stack)}
        for name, chosen in FORMATS.items():
            functions[name] = exported(os.path.join(folder, chosen.file), batch, stack)
        with open(os.path.join(folder, 'gitloss.json')) as file:
            shape = json.load(file)['input']['shape'][1:]
        images = np.random.RandomState(1).randint(0, 256, (batch, *shape)).astype(np.uint8)
        calls = arguments.calls if batch == 1 else max(arguments.calls // 10, 3)
        return measured(functions, images, arguments.turns, calls)


def table(results):
    """The Markdown table of docs/export.md."""
    head = ' | '.join(f'batch {batch}: ms | ratio | images/s' for batch in results)
    lines = [f'| format | {head} |']
    lines.append('|---' * (1 + 3 * len(results)) + '|')
    for name in results[BATCHES[0]]:
        cells = [name]
        for batch, times in results.items():
            ratios = [one / own for one, own in zip(times[name], times['session'])]
            middle = statistics.median(times[name])
            cells += [f'{middle:.2f}', f'{statistics.median(ratios):.2f}']
            cells.append(f'{batch / middle * 1e3:.0f}')
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def main():
    flags = parser(__doc__)
    flags.add_argument('--ckpt_path', required=True)
    flags.add_argument('--turns', type=int, default=5)
    flags.add_argument('--calls', type=int, default=50)
    flags.add_argument('--json')
    arguments = flags.parse_args()

    from trainers import checkpoints

    checkpoint = checkpoints.find(arguments.ckpt_path, '--ckpt_path')
    with tempfile.TemporaryDirectory() as folder:
        results = {batch: of_batch(checkpoint, folder, batch, arguments) for batch in BATCHES}
    print(table(results))
    write_json(arguments.json, results)


if __name__ == '__main__':
    main()
