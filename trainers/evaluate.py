"""python -m trainers.evaluate --ckpt_path=output/0: loss and accuracy of a checkpoint, whichever
TensorFlow wrote it.
"""

from __future__ import annotations

import json
import sys

from trainers import run

_INTRO = (
    'Measures loss and accuracy of a checkpoint on the validation and test images, and prints one '
    'JSON object. Network and loss are those of the checkpoint.'
)


def evaluate(options):
    """Prints one JSON object. Returns the exit status."""
    from callbacks.evaluation import evaluate as measure
    from gitloss import data
    from trainers import checkpoints, devices
    from trainers.engine.evaluator import Evaluator

    checkpoint = checkpoints.find(options.ckpt_path, '--ckpt_path')
    settings = options.with_saved(checkpoint.manifest['options'], 'evaluate')
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
    evaluator = Evaluator(settings, dataset, devices.choose(settings))
    results = evaluator.evaluate(
        checkpoint,
        lambda handle: {
            name: measure(handle, split)[0]
            for name, split in (('valid', dataset.valid), ('test', dataset.test))
        },
    )
    print(json.dumps(dict(results, step=checkpoint.step, checkpoint=checkpoint.path)))
    return 0


def main(arguments=None):
    return run.main(arguments, 'trainers.evaluate', _INTRO, evaluate)


if __name__ == '__main__':
    sys.exit(main())
