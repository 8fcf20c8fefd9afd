"""--freeze: the variables that are trained, and the normalization layers that are frozen."""

from __future__ import annotations

import fnmatch
from typing import Iterable

from gitloss import layers
from gitloss.backend import Tensor, keras

# First parts of the names of variables around the backbone.
_AROUND = ('preprocess', 'embedding')


def of_backbone(model: keras.Model) -> list[str]:
    """Names of the variables of the network before the embedding layer."""
    names = (variable.op.name for variable in model.weights)
    return [name for name in names if not name.startswith(_AROUND)]


def matching(patterns: str, names: Iterable[str], backbone: Iterable[str] = ()) -> set[str]:
    """Names that begin with one of the comma-separated patterns (shell wildcards allowed).

    Args:
      backbone: the names that the pattern `backbone` stands for.

    Raises:
      ValueError: a pattern matches nothing.
    """
    chosen: set[str] = set()
    for pattern in (part.strip() for part in patterns.split(',') if part.strip()):
        found = backbone if pattern == 'backbone' else fnmatch.filter(names, pattern + '*')
        if not found:
            expected = ', '.join(sorted({name.split('/')[0] for name in names}))
            raise ValueError(
                f'--freeze: expected patterns of variable names, {expected}. '
                f'Received: {pattern!r}, which matches none'
            )
        chosen.update(found)
    return chosen


def trainable(model: keras.Model, others: list[Tensor], patterns: str) -> list[Tensor]:
    """The variables to train, in the order of the network.

    A normalization layer is put in inference mode if all its variables match, moving averages
    included: its statistics would change under frozen weights otherwise.

    Args:
      model: the embedding network.
      others: further trainable variables.
      patterns: as for `matching`.

    Raises:
      ValueError: a pattern matches nothing, or nothing is left to train.
    """
    normalizations = [
        layer for layer in model.submodules if isinstance(layer, layers.BatchNormalization)
    ]
    for layer in normalizations:
        layer.trainable = True  # an earlier call may have frozen it
    weights = {variable.op.name: variable for variable in model.trainable_weights + others}
    averages = [v.op.name for v in model.non_trainable_weights if '/moving_' in v.name]
    frozen = matching(patterns, sorted([*weights, *averages]), of_backbone(model))
    if frozen.issuperset(weights):
        raise ValueError(
            f'--freeze: expected to leave a variable to train. Received: {patterns!r}, '
            'which matches all'
        )
    for layer in normalizations:
        layer.trainable = not frozen.issuperset(v.op.name for v in layer.weights)
    return [variable for name, variable in weights.items() if name not in frozen]
