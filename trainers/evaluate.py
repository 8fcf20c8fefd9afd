"""python -m trainers.evaluate --ckpt_path=output/0: loss, accuracy and class distances of a
checkpoint of any supported TensorFlow.

Measures loss, accuracy and class distances of a checkpoint on the validation and test images, and
prints one JSON object. Network and loss are those of the checkpoint. No training images are needed;
of images of other classes only the distances are measured.

With --pairs=FILE it verifies pairs of images instead: accuracy in folds, ROC, EER, TAR at a FAR, a
calibrated threshold. With --pairs and --embeddings=FILE.npz, of embeddings of any origin.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Sequence

from gitloss.errors import check, log
from trainers import command, streams
from trainers.options import FIELDS, Options


def _counts(dataset: Any) -> dict[str, int]:
    """{split: number of classes that its distances are measured of} of the splits with images."""
    counts = {}
    for split in ('valid', 'test'):
        source, classes = getattr(dataset, split), dataset.spec.num_classes
        if source is not None:
            counts[split] = max(classes, int(source.labels.max()) + 1)
            if counts[split] > classes:
                log.info('%s: only distances, some of its identities are no classes', split)
    return counts


def _measured(handle: Any, source: Any, count: int, with_losses: bool) -> dict[str, Any]:
    """Losses, accuracy and distances of a source, or the distances of its `count` classes alone."""
    from callbacks import evaluation
    from callbacks.class_distances import class_distances

    result = evaluation.evaluate(handle, source).result if with_losses else {}
    if 'inter_cls_dist' not in result:
        result.update(class_distances(handle, source, count)[0])
    return result


def _results(options: Options, checkpoint: Any) -> dict[str, Any]:
    """{'valid', 'test', 'step', 'checkpoint'}."""
    from trainers import checkpoints, devices, loading
    from trainers.engine import embedding, runtime

    settings = options.with_saved(checkpoints.options_of(checkpoint).as_dict(), 'evaluate')
    spec = checkpoints.spec_of(checkpoint)
    dataset = loading.dataset_to_measure(settings, checkpoint)
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

    counts = _counts(dataset)
    # Distances alone need neither class weights nor centers.
    with_classes = spec.num_classes in counts.values()
    opened = runtime.evaluation if with_classes else embedding.evaluation
    with opened(checkpoint, settings, devices.choose(settings)) as handle:
        results: dict[str, Any] = {'valid': None, 'test': None}
        for split, count in counts.items():
            source = getattr(dataset, split)
            results[split] = _measured(handle, source, count, count == spec.num_classes)
    return dict(results, step=checkpoint.step, checkpoint=checkpoint.path)


def evaluate(options: Options) -> int:
    """Prints one JSON object. Returns the exit status."""
    from trainers import verifying

    given = f'--ckpt_path={options.ckpt_path} --embeddings={options.embeddings}'
    expected = 'one of --ckpt_path and --embeddings'
    check(bool(options.ckpt_path) != bool(options.embeddings), 'flags', expected, given)
    for name in () if options.pairs else ('pairs_path', 'report_path', 'similarity', 'far'):
        value = getattr(options, name)
        check(value == FIELDS[name].default, f'--{name}', 'to stand with --pairs', f'{value} alone')
    if options.embeddings:
        check(options.pairs, '--pairs', 'pairs of the images of --embeddings', 'none')
        results = verifying.of_embeddings(options)
    else:
        from trainers import checkpoints

        work = verifying.of_checkpoint if options.pairs else _results
        results = checkpoints.using(
            options.ckpt_path, '--ckpt_path', lambda found: work(options, found)
        )
    streams.output(json.dumps(results))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    return command.main(
        arguments,
        'trainers.evaluate',
        __doc__ or '',
        evaluate,
        is_light=lambda options: options.embeddings,
    )


if __name__ == '__main__':
    sys.exit(main())
