"""python -m trainers.evaluate --ckpt_path=output/0: loss, accuracy and class distances of a
checkpoint of any supported TensorFlow.

Measures loss, accuracy and class distances of a checkpoint on the validation and test images, and
prints one JSON object. Network and loss are those of the checkpoint. No training images are needed;
of images of other classes only the distances are measured.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Sequence

from gitloss.errors import check_choice, log
from trainers import command, streams
from trainers.options import Options


def _results(options: Options, checkpoint: Any) -> dict[str, Any]:
    """{'valid', 'test', 'step', 'checkpoint'}."""
    from callbacks import evaluation
    from callbacks.centers import class_distances
    from gitloss import data
    from trainers import checkpoints, devices
    from trainers.engine import runtime

    settings = options.with_saved(checkpoints.options_of(checkpoint).as_dict(), 'evaluate')
    spec = checkpoints.spec_of(checkpoint)
    check_choice('--dataset', settings.dataset, sorted(data.DATASETS))
    dataset = data.load(settings.dataset, settings.data_folder)
    if dataset.spec.image_shape != spec.image_shape:
        raise ValueError(
            f'--data_path: expected images of the shape that {checkpoint.path} was trained on, '
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

    def measure(source: data.Source | None) -> dict[str, Any] | None:
        if source is None:
            return None
        losses = evaluation.evaluate(handle, source)[0] if classes == spec.num_classes else {}
        return dict(losses, **class_distances(handle, source, classes)[0])

    with runtime.evaluation(checkpoint, settings, devices.choose(settings)) as handle:
        results: dict[str, Any] = {'valid': measure(dataset.valid), 'test': measure(dataset.test)}
    return dict(results, step=checkpoint.step, checkpoint=checkpoint.path)


def evaluate(options: Options) -> int:
    """Prints one JSON object. Returns the exit status."""
    from trainers import checkpoints

    results = checkpoints.using(
        options.ckpt_path, '--ckpt_path', lambda found: _results(options, found)
    )
    streams.output(json.dumps(results))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    return command.main(arguments, 'trainers.evaluate', __doc__ or '', evaluate)


if __name__ == '__main__':
    sys.exit(main())
