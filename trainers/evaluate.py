"""python -m trainers.evaluate --ckpt_path=output/0: loss and accuracy of a checkpoint, whichever
TensorFlow wrote it.
"""

from __future__ import annotations

import json
import sys
from typing import Sequence

from trainers import command
from trainers.options import Options, names_in

_INTRO = (
    'Evaluates a checkpoint on the validation and test images: --ckpt_path is the folder of a run '
    '(its best checkpoint is taken), its ckpt folder or one checkpoint. The model comes from the '
    'checkpoint; data_path, batch_size and the flags of the device are yours.'
)


def evaluate(options: Options) -> int:
    """Prints one JSON object. Returns the exit status."""
    from callbacks.evaluation import evaluate as measure
    from gitloss import data
    from trainers import checkpoints, devices
    from trainers.engine.handles import evaluation

    checkpoint = checkpoints.find(options.ckpt_path, '--ckpt_path')
    here = names_in('device') | {'data_path', 'batch_size', 'tf_logs'}
    settings = checkpoints.options_of(checkpoint, **{name: getattr(options, name) for name in here})
    dataset = data.load(settings.dataset, settings.data_folder)
    found, wanted = (
        {name: facts[name] for name in ('num_classes', 'image_shape')}
        for facts in (dataset.facts, checkpoint.manifest['dataset'])
    )
    if found != wanted:
        raise ValueError(
            f'--data_path: expected the kind of data the checkpoint was trained on, {wanted}. '
            f'Received: {found}'
        )
    splits = {'valid': dataset.valid, 'test': dataset.test}
    with evaluation(checkpoint, settings, dataset, devices.choose(settings)) as handle:
        results = {name: measure(handle, split)[0] for name, split in splits.items()}
    print(json.dumps(dict(results, step=checkpoint.step, checkpoint=checkpoint.path)))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command.main(arguments, 'trainers.evaluate', _INTRO, evaluate)


if __name__ == '__main__':
    sys.exit(main())
