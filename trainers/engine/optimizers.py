"""The optimizers of --optimizer, one for each group of variables."""

from __future__ import annotations

import functools
from typing import Any, Callable, Collection, Iterable

from gitloss.backend import Tensor, tf
from trainers.options import Options

_OPTIMIZERS = {
    'adam': lambda rate, options: tf.train.AdamOptimizer(rate, epsilon=options.adam_epsilon),
    'sgd': lambda rate, options: tf.train.GradientDescentOptimizer(rate),
    'momentum': lambda rate, options: tf.train.MomentumOptimizer(rate, options.momentum),
    'adagrad': lambda rate, options: tf.train.AdagradOptimizer(rate),
}


class _Groups(tf.train.Optimizer):
    """Updates each group of variables with an optimizer of its own.

    It is one optimizer to loss scaling, which skips an update as a whole.

    Args:
      group_of: name of a variable -> its group.
      make: group -> its optimizer.
    """

    def __init__(self, group_of: Callable[[str], Any], make: Callable[[Any], Any]) -> None:
        super().__init__(use_locking=False, name='groups')
        self._group_of, self._make = group_of, functools.lru_cache(maxsize=None)(make)

    def apply_gradients(
        self, grads_and_vars: Iterable[Any], global_step: Any = None, name: str | None = None
    ) -> Any:
        groups: dict[Any, list] = {}
        for gradient, variable in grads_and_vars:
            groups.setdefault(self._group_of(variable.op.name), []).append((gradient, variable))
        updates = [self._make(group).apply_gradients(part) for group, part in groups.items()]
        if global_step is None:
            return tf.group(*updates, name=name)
        with tf.control_dependencies(updates):
            return tf.assign_add(global_step, 1, name=name)


def optimizer(
    rate: Tensor, options: Options, backbone: Collection[str], late: Collection[str]
) -> Any:
    """The optimizer that the options describe.

    Args:
      rate: the learning rate of the step, a scalar.
      backbone: names of the variables whose rate has the factor --backbone_rate.
      late: names of the variables that are trained from --unfreeze_at on. They have an optimizer of
        their own: Adam's correction of its averages counts from its first step, without which the
        first steps of such a variable would be three times as long.
    """
    make = _OPTIMIZERS[options.optimizer]
    if options.backbone_rate == 1.0 and not late:
        return make(rate, options)

    def group_of(name: str) -> tuple[float, bool]:
        return options.backbone_rate if name in backbone else 1.0, name in late

    return _Groups(group_of, lambda group: make(rate * group[0], options))
