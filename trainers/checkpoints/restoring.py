"""From a checkpoint to a session: find it, rebuild its network, load its values.

Evaluation, export and fine-tuning use it. None of them needs the training data, because the
manifest holds the options and the facts of the data set.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Any, Callable, Collection, Iterator, TypeVar

from gitloss import files
from gitloss.backend import tf
from gitloss.data import DataSpec
from gitloss.errors import DamagedCheckpoint, reason
from trainers.checkpoints import manifest
from trainers.checkpoints.manifest import Checkpoint
from trainers.checkpoints.saver import Saver, shapes
from trainers.checkpoints.store import CheckpointStore
from trainers.options import Options

_Result = TypeVar('_Result')


def _chosen(path: str) -> str | None:
    """The folder of the checkpoint that `find` takes, not verified."""
    if os.path.isfile(os.path.join(path, manifest.FILE)):
        return path
    for folder in (os.path.join(path, 'ckpt'), path):
        store = CheckpointStore(folder)
        found = store.best() or next(reversed(store.paths()), None)
        if found:
            return found
    return None


def find(path: str, flag: str, whole: bool = False) -> Checkpoint:
    """The checkpoint at `path`, verified, and pinned: a training that prunes leaves it until the
    result is no longer referenced. One that vanishes before leads to the next one.

    Args:
      path: the folder of a checkpoint; or the folder of a run, or its ckpt folder, with the best
        checkpoint, else the newest.
      flag: the flag with the path, for error lines.
      whole: see `manifest.read`. By default a tensor is verified when it is read: the network of a
        checkpoint of many classes is a small part of it.

    Raises:
      ValueError: there is no checkpoint, or it is damaged.
    """
    while True:
        chosen = _chosen(path)
        if chosen is None:
            raise ValueError(
                f'{flag}: expected a checkpoint, or a folder with checkpoints. Received: {path!r}'
            )
        try:
            pin = files.Folder(chosen)
        except OSError as error:
            if not os.path.lexists(chosen):
                continue
            raise DamagedCheckpoint(
                f'{chosen}: expected a folder that can be read. Received: {error}'
            )
        pin.lock(fcntl.LOCK_SH)  # waits for the end of a removal
        try:
            found = manifest.read(chosen, ('options', 'dataset'), whole)
            return found._replace(pin=pin)
        except DamagedCheckpoint:
            if pin.is_in_place:
                raise


def using(path: str, flag: str, work: Callable[[Checkpoint], _Result]) -> _Result:
    """`work` of the checkpoint that `find` finds. Begins again with the next one if this one is
    removed meanwhile, where the file system has no locks.
    """
    while True:
        checkpoint = find(path, flag)
        try:
            return work(checkpoint)
        except DamagedCheckpoint:
            if checkpoint.pin.is_in_place:
                raise


def run_of(path: str) -> str:
    """The folder of the run in whose series the checkpoint at `path` is; '' outside any series."""
    series, name = os.path.split(os.path.abspath(path))
    is_of_series = manifest.FOLDER.fullmatch(name) and os.path.basename(series) == 'ckpt'
    return os.path.dirname(series) if is_of_series else ''


def spec_of(checkpoint: Checkpoint) -> DataSpec:
    """The facts of the data that the network depends on. The mean image is one of the weights."""
    with _naming(checkpoint):
        return DataSpec.from_facts(checkpoint.manifest['dataset'])


def options_of(checkpoint: Checkpoint) -> Options:
    """The options of the run that saved the checkpoint."""
    with _naming(checkpoint):
        return Options.restored(checkpoint.manifest['options'])


def variables(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the variables in a checkpoint."""
    with _readable(checkpoint):
        found = shapes(os.path.join(checkpoint.path, manifest.PREFIX))
        return {name: tuple(shape) for name, shape in found.items()}


def value(checkpoint: Checkpoint, name: str) -> Any:
    """The value of a variable in a checkpoint, an array.

    Raises:
      DamagedCheckpoint: it has no such variable.
    """
    with _readable(checkpoint):
        reader = tf.train.load_checkpoint(os.path.join(checkpoint.path, manifest.PREFIX))
        return reader.get_tensor(name)


def restore(session: Any, saver: Saver, checkpoint: Checkpoint) -> None:
    """Loads the values of a verified checkpoint into a session, without shards.

    Raises:
      DamagedCheckpoint: the checkpoint is of another model.
    """
    with session.graph.as_default(), _readable(checkpoint):
        saver.restore(session, os.path.join(checkpoint.path, manifest.PREFIX))


def restore_shards(
    session: Any,
    saver: Saver,
    checkpoint: Checkpoint | None,
    names: Collection[str] | None = None,
) -> None:
    """Loads the shards of all workers, which call it together; only the chief reads the checkpoint.

    Args:
      names: of the tensors over all classes to load; None: all.
    """
    path = os.path.join(checkpoint.path, manifest.PREFIX) if checkpoint else ''
    with session.graph.as_default(), contextlib.ExitStack() as stack:
        if checkpoint:
            stack.enter_context(_readable(checkpoint))
        saver.restore_shards(session, path, names)


@contextlib.contextmanager
def session_of(
    checkpoint: Checkpoint, build: Callable[[], Any], config: Any = None
) -> Iterator[tuple[Any, Any]]:
    """A new graph and session in which a network has the weights of the checkpoint.

    Args:
      build: () -> an object whose `weights` are the variables to load; called with the new graph
        as default.
      config: the tf.ConfigProto of the session.

    Yields:
      (what `build` returned, the session). The graph is finalized.
    """
    with tf.Graph().as_default() as graph:
        with _naming(checkpoint):  # its network, or its images, may be unknown here
            net = tf.autograph.experimental.do_not_convert(build)()  # as for a training
        saver = Saver(net.weights)
        graph.finalize()
        with tf.Session(graph=graph, config=config) as session:
            restore(session, saver, checkpoint)
            restore_shards(session, saver, checkpoint)
            yield net, session


@contextlib.contextmanager
def _naming(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise DamagedCheckpoint(f'{checkpoint.path}: {error}')


@contextlib.contextmanager
def _readable(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, ValueError) as error:  # ValueError: a saver that finds no file
        raise DamagedCheckpoint(
            f'{checkpoint.path}: expected a checkpoint of this model. Received: {reason(error)}'
        )
