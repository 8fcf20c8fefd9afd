"""The variables of a checkpoint, written and read by TensorFlow."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Collection, Iterator, Sequence

from gitloss import files
from gitloss.backend import tf
from gitloss.errors import log
from gitloss.sharding import shard_of
from trainers.checkpoints.pieces import Pieces
from trainers.workers.group import OneWorker

_ADAM_SCALAR = re.compile(r'.*/(beta[12]_power)$')
# Variables of loss scaling, in the adapter of the NPU and in TensorFlow.
_LOSS_SCALING = {'loss_scale', 'current_loss_scale', 'good_steps', 'bad_steps'}


@contextlib.contextmanager
def literal(path: str) -> Iterator[str]:
    """The path of a file that exists, as TensorFlow's readers of checkpoints need it: they take it
    for a pattern, and would not find the files of a folder `run[1]`.
    """
    if not re.search(r'[*?[\\]', path):
        yield path
        return
    folder, name = os.path.split(path)
    with contextlib.closing(files.Folder(folder)) as opened:
        yield os.path.join(opened.alias, name)


def shapes(path: str) -> dict[str, list[int]]:
    """{name: shape} of the variables in TensorFlow's files at `path`."""
    with literal(path) as readable:
        return dict(tf.train.list_variables(readable))


class Saver:
    """tf.train.Saver with the same variable names on all devices, which looks at shapes.

    Loss scaling builds Adam's scalars inside a conditional, which adds its name to theirs: they are
    saved under their plain names. Its own variables restart if a checkpoint lacks them.

    Args:
      variables: what is saved; shards and their slots of all workers become one tensor.
      group: the workers that have shards.
    """

    def __init__(self, variables: Sequence[Any], group: OneWorker | None = None) -> None:
        self._group = group or OneWorker()
        shards = [(variable, shard_of(variable, variables)) for variable in variables]
        named = {
            _ADAM_SCALAR.sub(r'\1', variable.op.name): variable
            for variable, shard in shards
            if shard is None
        }
        self._shapes = {name: variable.shape.as_list() for name, variable in named.items()}
        self._scaling = _LOSS_SCALING & set(named)
        self._saver = self._unscaled = tf.train.Saver(named, max_to_keep=None)
        if self._scaling:
            self._unscaled = tf.train.Saver(
                {name: variable for name, variable in named.items() if name not in self._scaling}
            )
        self._pieces = [Pieces(variable, shard, self._group) for variable, shard in shards if shard]
        self._shapes.update((pieces.name, list(pieces.shape)) for pieces in self._pieces)
        if self._pieces:
            self._parts = tf.placeholder(tf.string, [None], name='parts')
            self._whole = tf.placeholder(tf.string, [], name='whole')
            with tf.device('/cpu:0'):
                self._merge = tf.raw_ops.MergeV2Checkpoints(
                    checkpoint_prefixes=self._parts,
                    destination_prefix=self._whole,
                    delete_old_dirs=False,
                )

    @contextlib.contextmanager
    def gathering(self, session: Any) -> Iterator[None]:
        """All workers enter this context to save. The chief saves in it; whether that succeeds or
        not, the workers have sent their shards when it ends.
        """
        self._arriving = (
            (pieces, rows) for pieces in self._pieces for rows in pieces.gathered(session)
        )
        try:
            yield
        finally:
            for _ in self._arriving:
                pass

    def save(self, session: Any, path: str) -> None:
        """Writes the variables to TensorFlow's files at `path`, on the chief."""
        settings = {'write_meta_graph': False, 'write_state': False}
        if not self._pieces:
            self._saver.save(session, path, **settings)
            return
        parts = [f'{path}.part']
        self._saver.save(session, parts[0], **settings)
        for number, (pieces, rows) in enumerate(self._arriving):
            parts.append(f'{path}.part{number}')
            pieces.save(session, parts[-1], rows)
        session.run(self._merge, {self._parts: parts, self._whole: path})

    def _check(self, path: str) -> set[str]:
        """The variables of loss scaling that are missing.

        Raises:
          ValueError: see `restore`.
        """
        found = shapes(path)
        missing = self._scaling - set(found)
        for name in sorted(set(self._shapes) - missing):
            if name not in found:
                raise ValueError(f'one without {name}')
            if found[name] != self._shapes[name]:
                raise ValueError(f'{name} of shape {found[name]}, not {self._shapes[name]}')
        if missing:
            log.info(
                'no %s in the checkpoint: loss scaling begins anew', ', '.join(sorted(missing))
            )
        return missing

    def restore(self, session: Any, path: str) -> None:
        """Loads the variables of TensorFlow's files at `path`, but for shards.

        Raises:
          ValueError: they lack a variable, or have one of another shape, which TensorFlow would
            take.
        """
        missing = self._check(path)
        with literal(path) as readable:
            (self._unscaled if missing else self._saver).restore(session, readable)

    def restore_shards(self, session: Any, path: str, names: Collection[str] | None = None) -> None:
        """Loads the shards of all workers, which call it together; the chief has the files.

        Args:
          names: of the tensors to load; None: all.
        """
        chosen = [pieces for pieces in self._pieces if names is None or pieces.name in names]
        with contextlib.ExitStack() as stack:
            if chosen and self._group.is_chief:
                path = stack.enter_context(literal(path))
            for pieces in chosen:
                pieces.restore(session, path)
