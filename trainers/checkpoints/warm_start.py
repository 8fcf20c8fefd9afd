"""--init_checkpoint, fine-tuning: a new run starts with the weights of another run."""

from __future__ import annotations

from typing import Any, Sequence

from gitloss.data import DataSpec
from gitloss.errors import check, log
from trainers import checkpoints

# Scopes of the variables that are initialized if the number of classes or the head differs.
_OF_THE_CLASSES = ('prelu', 'logits', 'center_loss')


class WarmStart:
    """Chooses, while the graph is built, the variables that come from the checkpoint.

    Args:
      path: a checkpoint, or a folder with checkpoints.
      variables: the weights of the network and the centers.
      spec: of the training data. Its preprocessing must be that of the checkpoint, whose mean image
        comes with the weights.

    Raises:
      ValueError: there is no checkpoint, or it is of another model or preprocessing.
    """

    def __init__(self, path: str, variables: Sequence[Any], spec: DataSpec) -> None:
        self._checkpoint = checkpoints.find(path, '--init_checkpoint')
        saved_spec = checkpoints.spec_of(self._checkpoint)
        theirs, ours = saved_spec.preprocessing.divisor, spec.preprocessing.divisor
        expected = f'pixels / {theirs:g} as in {self._checkpoint.path}'
        check(theirs == ours, '--preprocessing', expected, f'pixels / {ours:g}')
        saved = checkpoints.variables(self._checkpoint)
        taken: list[Any] = []
        self._fresh: list[str] = []
        for variable in variables:
            name, shape = variable.op.name, tuple(variable.shape.as_list())
            if saved.get(name) == shape:
                taken.append(variable)
            elif name.split('/')[0] in _OF_THE_CLASSES:
                self._fresh.append(name)
            else:
                received = list(saved[name]) if name in saved else 'none'
                raise ValueError(
                    f'--init_checkpoint: expected {name} of shape {list(shape)} as in this model. '
                    f'Received: {received} in {self._checkpoint.path}'
                )
        self._saver = checkpoints.Saver(taken)

    def restore(self, session: Any) -> None:
        """Loads the variables of the checkpoint; the others keep their initial values."""
        checkpoints.restore(session, self._saver, self._checkpoint)
        fresh = f'; fresh: {", ".join(self._fresh)}' if self._fresh else ''
        log.info('weights from %s%s', self._checkpoint.path, fresh)
