"""What trainers.embed and trainers.predict compute with: the network of a checkpoint, or an
exported model in its own runtime.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, ContextManager, NamedTuple, TypeVar

import numpy as np

from gitloss.errors import check, one_line
from trainers import checkpoints, devices, loading
from trainers.engine.embedding import Embedder, embedder
from trainers.exporting import description, runtimes
from trainers.options import FIELDS, Options

_Result = TypeVar('_Result')
_OF_SESSIONS = ('device', 'precision', 'precision_mode', 'npu_option')


class Network(NamedTuple):
    """A network that embeds images, and what is known of it.

    image_shape: (height, width, channels).
    dim: of the embeddings.
    facts: JSON values that tell its embeddings from those of another network.
    classes: their names; [] if they have none, or these are not known.
    centers: () -> float32 [classes, dim]; None: not known.
    open: () -> a context with the Embedder.
    """

    image_shape: tuple[int, ...]
    dim: int
    facts: dict[str, Any]
    classes: list[str]
    centers: Callable[[], np.ndarray | None]
    open: Callable[[], ContextManager[Embedder]]


def using(
    options: Options,
    command: str,
    batch_size: int,
    work: Callable[[Network], _Result],
    classifier: bool = False,
) -> _Result:
    """`work` of the Network at --ckpt_path: a run, a checkpoint, an exported file, the folder of a
    SavedModel, or a folder of an export, whose first file is taken.

    Args:
      command: as `embed`.
      batch_size: images in a call.
      classifier: whether the Embedder has `logits`.

    Raises:
      ValueError: there is no network, it is damaged, or has no classifier; OSError: it cannot be
        read.
    """
    exported = description.model_at(options.ckpt_path)
    if exported:
        return _of_export(options, exported, batch_size, work, classifier)

    def of_checkpoint(checkpoint: checkpoints.Checkpoint) -> _Result:
        saved, spec = checkpoints.options_of(checkpoint), checkpoints.spec_of(checkpoint)
        settings = options.with_saved(saved.as_dict(), command)
        return work(
            Network(
                spec.image_shape,
                saved.embedding_dim,
                checkpoint.manifest['files'],
                loading.classes_of(checkpoint),
                lambda: checkpoints.value(checkpoint, 'center_loss/centers'),
                lambda: embedder(checkpoint, devices.choose(settings), batch_size, classifier),
            )
        )

    return checkpoints.using(options.ckpt_path, '--ckpt_path', of_checkpoint)


def _of_export(
    options: Options,
    path: str,
    batch_size: int,
    work: Callable[[Network], _Result],
    classifier: bool,
) -> _Result:
    for name in _OF_SESSIONS:
        value, default = getattr(options, name), FIELDS[name].default
        is_free = value == default or (name, value) == ('device', 'cpu')
        received = f'{value} with {one_line(path, 500)}'
        check(is_free, f'--{name}', 'a checkpoint: exported models run on the CPU', received)
    facts, classes = description.of_model(path)
    with runtimes.open_model(path, batch_size) as model:
        has_all = not classifier or 'logits' in model.outputs
        shown, received = one_line(path, 5000), ', '.join(model.outputs)
        check(has_all, shown, 'an export with logits, which names classes', received)
        network = Embedder(model, model.image_shape, model.batch_size)
        return work(
            Network(
                model.image_shape,
                model.dim,
                facts,
                classes,
                lambda: None,
                lambda: contextlib.nullcontext(network),
            )
        )
