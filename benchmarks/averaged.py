"""Does averaging the weights over the end of a run help? Measures means of its last checkpoints.

    python -m trainers.run --flagfile=flags/full.cfg --save_every=50 --keep_checkpoints=21
    python benchmarks/averaged.py output/0 --counts=1,5,21 [--data_path=DIR]

For each count it prints accuracy and class distances with the mean of the weights of the last so
many checkpoints (Polyak averaging; Izmailov et al., UAI 2018), centers included. One is the run as
it ended. Networks without batch normalisation need no further step.
"""

from __future__ import annotations

import glob
import os
from typing import Any, Sequence

import measuring
import numpy as np

from callbacks.evaluation import evaluate
from trainers import checkpoints, devices, loading
from trainers.engine import runtime
from trainers.options import Options


def mean_of(found: Sequence[checkpoints.Checkpoint], name: str) -> np.ndarray:
    """The mean of a variable over checkpoints, float64."""
    return np.mean([np.asarray(checkpoints.value(one, name), np.float64) for one in found], axis=0)


def measured(handle: Any, dataset: Any) -> list[float]:
    """Accuracies of validation and test images; inter, intra and ratio of training and test."""
    valid, test = (evaluate(handle, part).result for part in (dataset.valid, dataset.test))
    train = evaluate(handle, dataset.train).result
    row = [valid['acc'], test['acc']]
    for part in (train, test):
        row += [part[f'{name}_cls_dist'] for name in ('inter', 'intra')]
        row += [part['inter_over_intra']]
    return row


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument('run', help='folder of a run')
    parser.add_argument('--counts', default='1,5,21', help='numbers of checkpoints')
    parser.add_argument('--data_path', default='', help='the data, if they have moved')
    arguments = parser.parse_args()
    paths = sorted(glob.glob(os.path.join(arguments.run, 'ckpt', 'step-*')))
    found = [checkpoints.find(path, 'run') for path in paths]
    last = found[-1]
    settings = Options.restored(checkpoints.options_of(last).as_dict(), device='cpu')
    if arguments.data_path:
        settings = Options.restored(settings.as_dict(), data_path=arguments.data_path)
    dataset = loading.dataset_to_measure(settings, last)
    dataset.require('train', 'valid', 'test')
    print(
        '| checkpoints | from step | valid acc | test acc | inter | intra | ratio | test inter | '
        'test intra | test ratio |\n|---|---|---|---|---|---|---|---|---|---|'
    )
    with runtime.evaluation(last, settings, devices.choose(settings)) as handle:
        for count in map(int, arguments.counts.split(',')):
            part = found[-count:]
            for variable in handle.net.weights:
                if variable.dtype.is_floating:
                    variable.load(mean_of(part, variable.op.name), handle.session)
            row = measured(handle, dataset)
            cells = [f'{value:.4f}' for value in row[:2]] + [f'{value:.3f}' for value in row[2:]]
            print(f'| {len(part)} | {part[0].step} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
