"""--init_checkpoint, fine-tuning: a new run starts with the weights of another run."""

from __future__ import annotations

from typing import Any, Sequence

from gitloss.data import DataSpec
from gitloss.errors import check, log
from gitloss.sharding import shard_of
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

    Attributes:
      checkpoint: the one that was found.
      shards: names of the tensors in it from which the shards come, see `restore_shards`.

    Raises:
      ValueError: there is no checkpoint, or it is of another model or preprocessing.
    """

    def __init__(self, path: str, variables: Sequence[Any], spec: DataSpec) -> None:
        self.checkpoint = checkpoints.find(path, '--init_checkpoint', whole=True)
        saved_spec = checkpoints.spec_of(self.checkpoint)
        theirs, ours = saved_spec.preprocessing.divisor, spec.preprocessing.divisor
        expected = f'pixels / {theirs:g} as in {self.checkpoint.path}'
        check(theirs == ours, '--preprocessing', expected, f'pixels / {ours:g}')
        saved = checkpoints.variables(self.checkpoint)
        taken: list[Any] = []
        self._fresh: list[str] = []
        self.shards: list[str] = []
        for variable in variables:
            name, shape = variable.op.name, tuple(variable.shape.as_list())
            shard = shard_of(variable, [variable])
            if shard:
                name, shape = shard.name, (shard.num_classes, *shape[1:])
            if saved.get(name) == shape and shard:
                self.shards.append(name)
            elif saved.get(name) == shape:
                taken.append(variable)
            elif name.split('/')[0] in _OF_THE_CLASSES:
                self._fresh.append(name)
            else:
                received = list(saved[name]) if name in saved else 'none'
                raise ValueError(
                    f'--init_checkpoint: expected {name} of shape {list(shape)} as in this model. '
                    f'Received: {received} in {self.checkpoint.path}'
                )
        self._saver = checkpoints.Saver(taken)

    def restore(self, session: Any) -> None:
        """Loads the variables of the checkpoint, without shards; the others keep their initial
        values.
        """
        checkpoints.restore(session, self._saver, self.checkpoint)
        fresh = f'; fresh: {", ".join(self._fresh)}' if self._fresh else ''
        log.info('weights from %s%s', self.checkpoint.path, fresh)
