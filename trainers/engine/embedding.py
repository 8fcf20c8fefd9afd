"""Embeddings of images by the network of a checkpoint, at the speed of the network."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, NamedTuple

import numpy as np

from gitloss.data import DataSpec, Source
from gitloss.data.integrity import in_threads
from gitloss.metrics.verification import unit_rows
from trainers import checkpoints
from trainers.devices import Device
from trainers.engine.inference import Inference


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
    """The network of a checkpoint in a session.

    Attributes:
      net: the Inference.
      session: the tf.Session.
      spec: the facts of the images.
      batch_size: images in a call; less are padded.
    """

    def __init__(self, net: Inference, session: Any, spec: DataSpec, batch_size: int) -> None:
        self.net, self.session, self.spec, self.batch_size = net, session, spec, batch_size

    def values(self, fetches: Any, images: np.ndarray) -> Any:
        """`fetches`, a structure of tensors [batch, ...], of at most batch_size images."""
        short = self.batch_size - len(images)
        if short:
            images = np.concatenate([images, np.repeat(images[-1:], short, axis=0)])
        return self.session.run(fetches, {self.net.images: images})

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
            count, tensor = len(images), self.net.embeddings
            plain = self.values(tensor, images)[:count]
            # Mirrored from left to right.
            other = self.values(tensor, images[:, :, ::-1])[:count] if flip else None
            yield Embedded(plain, other)

    def embed(self, source: Source, flip: bool = False) -> Embedded:
        """The embeddings of a source."""
        parts = list(self.sweep(source, flip=flip))
        plain = np.concatenate([part.plain for part in parts])
        if not flip:
            return Embedded(plain)
        return Embedded(plain, np.concatenate([part.mirrored for part in parts]))


@contextlib.contextmanager
def embedder(
    checkpoint: checkpoints.Checkpoint, device: Device, batch_size: int
) -> Iterator[Embedder]:
    """A context with the Embedder of a checkpoint.

    Args:
      device: where the session runs.
      batch_size: images in a call; the embeddings do not depend on it.

    Raises:
      DamagedCheckpoint: the checkpoint is of another model.
    """
    options, spec = checkpoints.options_of(checkpoint), checkpoints.spec_of(checkpoint)
    with checkpoints.session_of(
        checkpoint, lambda: Inference(options, spec, batch_size), device.config
    ) as (net, session):
        yield Embedder(net, session, spec, batch_size)
