"""The variables of a checkpoint, written and read by TensorFlow."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Iterator, Sequence

from gitloss import files
from gitloss.backend import tf
from gitloss.errors import log

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
    """

    def __init__(self, variables: Sequence[Any]) -> None:
        named = {_ADAM_SCALAR.sub(r'\1', variable.op.name): variable for variable in variables}
        self._shapes = {name: variable.shape.as_list() for name, variable in named.items()}
        self._scaling = _LOSS_SCALING & set(named)
        self._saver = self._unscaled = tf.train.Saver(named, max_to_keep=None)
        self.save = self._saver.save
        if self._scaling:
            self._unscaled = tf.train.Saver(
                {name: variable for name, variable in named.items() if name not in self._scaling}
            )

    def restore(self, session: Any, path: str) -> None:
        """Loads the variables of TensorFlow's files at `path`.

        Raises:
          ValueError: they lack a variable, or have one of another shape, which TensorFlow would
            take.
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
        with literal(path) as readable:
            (self._unscaled if missing else self._saver).restore(session, readable)
