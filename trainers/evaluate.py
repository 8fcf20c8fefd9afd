"""python -m trainers.evaluate --ckpt_path=output/0: loss, accuracy and class distances of a
checkpoint, whichever TensorFlow wrote it.
"""

from __future__ import annotations

import json
import sys

from gitloss.errors import log
from trainers import run

_INTRO = (
    'Measures loss, accuracy and class distances of a checkpoint on the validation and test '
    'images, and prints one JSON object. Network and loss are those of the checkpoint. No training '
    'images are needed; of images of other classes only the distances are measured.'
)


def evaluate(options):
    """Prints one JSON object. Returns the exit status."""
    from callbacks import evaluation
    from callbacks.centers import class_distances
    from gitloss import data
    from trainers import checkpoints, devices
    from trainers.engine.evaluator import Evaluator

    checkpoint = checkpoints.find(options.ckpt_path, '--ckpt_path')
    settings = options.with_saved(checkpoint.manifest['options'], 'evaluate')
    spec = data.DataSpec.from_facts(checkpoint.manifest['dataset'])
    dataset = data.load(settings.dataset, settings.data_folder)
    if dataset.spec.image_shape != spec.image_shape:
        raise ValueError(
            '--data_path: expected images of the shape the checkpoint was trained on, '
            f'{spec.image_shape}. Received: {dataset.spec.image_shape}'
        )
    classes = dataset.spec.num_classes
    if classes != spec.num_classes:
        log.info(
            'no loss and no accuracy, only distances of embeddings: the checkpoint has %d classes, '
            'the data %d',
            spec.num_classes,
            classes,
        )

    def measure(handle, source):
        losses = evaluation.evaluate(handle, source)[0] if classes == spec.num_classes else {}
        return dict(losses, **class_distances(handle, source, classes)[0])

    results = Evaluator(settings, spec, devices.choose(settings)).evaluate(
        checkpoint,
        lambda handle: {
            name: None if source is None else measure(handle, source)
            for name, source in (('valid', dataset.valid), ('test', dataset.test))
        },
    )
    print(json.dumps(dict(results, step=checkpoint.step, checkpoint=checkpoint.path)))
    return 0


def main(arguments=None):
    return run.main(arguments, 'trainers.evaluate', _INTRO, evaluate)


if __name__ == '__main__':
    sys.exit(main())
