"""Embeddings of images by the network of a checkpoint, at the speed of the network."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, NamedTuple, Sequence

import numpy as np

from callbacks.base import Batch, Handle
from gitloss.data import Source
from gitloss.data.integrity import in_threads
from gitloss.errors import check
from gitloss.metrics.verification import unit_rows
from trainers import checkpoints, subnormals
from trainers.devices import Device
from trainers.engine.inference import Inference
from trainers.options import Options


class Embedded(NamedTuple):
    """Embeddings of images, float32 [n, dim], and of their mirror images; None without `flip`."""

    plain: np.ndarray
    mirrored: np.ndarray | None = None

    def combined(self, normalize: bool = False) -> np.ndarray:
        """float32 [n, dim]: the mean of both, without mirror images the embeddings.

        Args:
          normalize: scale the result to length 1.
        """
        both = self.plain if self.mirrored is None else (self.plain + self.mirrored) / 2
        return unit_rows(both).astype(np.float32) if normalize else both


class Embedder:
    """A network that embeds images.

    Args:
      run: (names, images [batch_size, ...]) -> the outputs of these names, of `embeddings` and
        `logits`.
      image_shape: (height, width, channels).
      batch_size: images in a call; less are padded.
    """

    def __init__(
        self,
        run: Callable[[Sequence[str], np.ndarray], list[np.ndarray]],
        image_shape: tuple[int, ...],
        batch_size: int,
    ) -> None:
        self._run, self.image_shape, self.batch_size = run, image_shape, batch_size

    def values(self, names: Sequence[str], images: np.ndarray) -> list[np.ndarray]:
        """The outputs `names` of at most batch_size images."""
        count = len(images)
        if count < self.batch_size:
            padding = np.repeat(images[-1:], self.batch_size - count, axis=0)
            images = np.concatenate([images, padding])
        return [values[:count] for values in self._run(names, images)]

    def sweep(
        self, source: Source, start: int = 0, stop: int | None = None, flip: bool = False
    ) -> Iterator[Embedded]:
        """The embeddings of the images start ... stop - 1 of a source, a batch at a time.

        Images are read and decoded in other threads, a few batches ahead.

        Raises:
          ValueError: an image is refused; OSError: a file cannot be read.
        """
        stop = len(source) if stop is None else stop
        firsts = range(start, stop, self.batch_size)
        numbers = (np.arange(first, min(first + self.batch_size, stop)) for first in firsts)
        for images in in_threads(source.images, numbers):
            (plain,) = self.values(['embeddings'], images)
            # Mirrored from left to right.
            other = self.values(['embeddings'], images[:, :, ::-1])[0] if flip else None
            yield Embedded(plain, other)

    def embed(self, source: Source, flip: bool = False) -> Embedded:
        """The embeddings of a source."""
        parts = list(self.sweep(source, flip=flip))
        plain = np.concatenate([part.plain for part in parts])
        if not flip:
            return Embedded(plain)
        return Embedded(plain, np.concatenate([part.mirrored for part in parts]))


def of_session(net: Inference, session: Any, batch_size: int) -> Embedder:
    """The Embedder of a network in a session."""
    tensors = {'embeddings': net.embeddings, 'logits': net.logits}

    def run(names: Sequence[str], images: np.ndarray) -> list[np.ndarray]:
        with subnormals.as_zero():
            return session.run([tensors[name] for name in names], {net.images: images})

    return Embedder(run, tuple(net.images.shape.as_list()[1:]), batch_size)


class EmbeddingHandle(Handle):
    """What a measurement can use of a network without its classes: it sweeps embeddings alone."""

    def __init__(self, network: Embedder, settings: Options, step: int) -> None:
        self._network, self.options, self.step = network, settings.as_dict(), step
        self.batch_size = network.batch_size

    def sweep(
        self, source: Source, with_losses: bool = False, with_predictions: bool = True
    ) -> Iterator[Batch]:
        """As of a Handle, with neither losses nor predictions."""
        asked = f'with_losses={with_losses}, with_predictions={with_predictions}'
        check(not (with_losses or with_predictions), 'sweep', 'embeddings alone', asked)
        start = 0
        for embeddings, _ in self._network.sweep(source):
            stop = start + len(embeddings)
            yield embeddings, np.empty(0, np.int32), source.labels[start:stop], {}
            start = stop

    def center_rows(self, classes: np.ndarray) -> np.ndarray:
        raise NotImplementedError('centers of a network without its classes')

    def centers_moved(self) -> float:
        raise NotImplementedError('centers of a network without its classes')


@contextlib.contextmanager
def evaluation(
    checkpoint: checkpoints.Checkpoint, settings: Options, device: Device
) -> Iterator[Handle]:
    """As `trainers.engine.runtime.evaluation`, of the embeddings alone: an EmbeddingHandle."""
    with embedder(checkpoint, device, settings.batch_size) as network:
        yield EmbeddingHandle(network, settings, checkpoint.step)


@contextlib.contextmanager
def embedder(
    checkpoint: checkpoints.Checkpoint, device: Device, batch_size: int, classifier: bool = False
) -> Iterator[Embedder]:
    """A context with the Embedder of a checkpoint.

    Args:
      device: where the session runs.
      batch_size: images in a call; the embeddings do not depend on it.
      classifier: whether it has `logits`. Without, class weights are neither built nor read.

    Raises:
      DamagedCheckpoint: the checkpoint is of another model.
    """
    options, spec = checkpoints.options_of(checkpoint), checkpoints.spec_of(checkpoint)
    with checkpoints.session_of(
        checkpoint,
        lambda: Inference(options, spec, batch_size, device.network_dtype, classifier),
        device.config,
    ) as (net, session):
        yield of_session(net, session, batch_size)
