"""python -m trainers.run --flagfile=flags/full.cfg: trains with Git loss.

Trains discriminative embeddings with softmax, center loss and git loss. Everything is written to
output/<device id>/, or to --exp_save_dir.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from trainers import command, streams
from trainers.options import Options


def _header(
    options: Options, dataset: Any, device: Any, group: Any, made_by: Mapping[str, Any]
) -> list[str]:
    """The first lines of the log of a run."""
    spec, splits = dataset.spec, (dataset.train, dataset.valid, dataset.test)
    train, valid, test = (0 if split is None else len(split) for split in splits)
    lines = [
        f'Git loss {made_by["gitloss"]}, Python {made_by["python"]}, '
        f'TensorFlow {made_by["tensorflow"]}, device {device.name} ({device.reason})',
        f'{spec.name}: {train} training, {valid} validation, {test} test images of '
        f'{"x".join(map(str, spec.image_shape))}, {spec.num_classes} classes; {options.model}, '
        f'{options.embedding_dim}-dimensional embeddings',
    ]
    lines += device.advice()
    if device.name == 'npu' and device.mixed:
        lines += lost_in_float16(options)
    if group.size > 1:
        lines.append(
            f'worker {group.rank} of {group.size}, {options.batch_size // group.size} images of '
            f'each batch of {options.batch_size}'
        )
    return lines


def lost_in_float16(options: Options) -> list[str]:
    """A warning for each number of a training that float16 may take for 0."""
    found, batch = [], options.batch_size
    if options.optimizer == 'adam' and options.adam_epsilon < 6e-8:
        found.append(
            f'warning: --adam_epsilon={options.adam_epsilon:g} is 0 in float16: '
            'an update may divide by 0; 1e-4 is advised'
        )
    # The factor of the gradient in losses.git_term; 2^-14 is the smallest normal number.
    is_pairwise = options.git_loss_form == 'pairwise'
    terms = max(1, batch * (batch - 1)) if is_pairwise else batch * batch * options.embedding_dim
    factor = 2 * options.lambda_g / terms
    if 0 < factor < 2**-14 and not options.loss_scale:
        found.append(
            f'warning: the gradient of the git loss has the factor {factor:.1e}, which float16 '
            'may take for 0 (below 6.1e-05); --loss_scale=dynamic is advised'
        )
    return found


def train(options: Options) -> int:
    """Loads the data and trains. Returns the exit status."""
    from trainers import callback_list, devices, loading
    from trainers.engine.trainer import Trainer
    from trainers.workers import engines

    dataset = loading.dataset_to_train(options)
    dataset.require('train')
    device = devices.choose(options)
    group = engines.choose(options, device)
    facts: dict[str, Any] = {
        'network': options.model,
        'options': options.as_dict(),
        'versions': command.versions(),
        'device': device.name,
    }
    callbacks = callback_list.build_callbacks(
        options,
        dataset,
        facts,
        _header(options, dataset, device, group, facts['versions']),
        group.rank,
    )
    trainer = Trainer(options, dataset, callbacks, device, facts['versions'], group)
    trainer.fit()
    return 1 if trainer.callbacks.failures else 0


def main(arguments: Sequence[str] | None = None, work: Callable[[Options], int] = train) -> int:
    """Runs the command line. Returns the exit status."""
    return command.main(arguments, 'trainers.run', __doc__ or '', work)


if __name__ == '__main__':
    streams.leave(main())
