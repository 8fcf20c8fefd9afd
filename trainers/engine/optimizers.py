"""The optimizers of --optimizer, one for each group of variables."""

from __future__ import annotations

from typing import Any, Callable, Collection, Iterable, Mapping

from gitloss.backend import Tensor, tf
from trainers.options import Options


class _LazyAdam(tf.train.AdamOptimizer):
    """Adam that, of a variable with a sparse gradient, changes the rows of the gradient alone.

    TensorFlow's own decays the averages of all rows in every step and moves all rows by them, which
    costs as much as a dense gradient.
    """

    def _resource_apply_sparse(self, grad: Tensor, var: Tensor, indices: Tensor) -> Tensor:
        powers = self._get_beta_accumulators()
        beta1, beta2 = self._beta1_t, self._beta2_t
        rate = self._lr_t * tf.sqrt(1.0 - powers[1]) / (1.0 - powers[0])
        slots = [self.get_slot(var, name) for name in ('m', 'v')]
        old = [tf.gather(slot, indices) for slot in slots]
        mean = beta1 * old[0] + (1.0 - beta1) * grad
        square = beta2 * old[1] + (1.0 - beta2) * tf.square(grad)
        step = rate * mean / (tf.sqrt(square) + self._epsilon_t)
        moves = [
            tf.raw_ops.ResourceScatterUpdate(resource=slot.handle, indices=indices, updates=rows)
            for slot, rows in zip(slots, (mean, square))
        ]
        moves.append(
            tf.raw_ops.ResourceScatterSub(resource=var.handle, indices=indices, updates=step)
        )
        return tf.group(*moves)


def _adam(rate: Tensor, options: Options) -> Any:
    kind = _LazyAdam if options.lazy_adam else tf.train.AdamOptimizer
    return kind(rate, epsilon=options.adam_epsilon)


_OPTIMIZERS = {
    'adam': _adam,
    'sgd': lambda rate, options: tf.train.GradientDescentOptimizer(rate),
    'momentum': lambda rate, options: tf.train.MomentumOptimizer(rate, options.momentum),
    'adagrad': lambda rate, options: tf.train.AdagradOptimizer(rate),
}


class _Groups(tf.train.Optimizer):
    """Updates each group of variables with an optimizer of its own.

    It is one optimizer to loss scaling, which skips an update as a whole.

    Args:
      optimizers: {group: optimizer}.
      group_of: name of a variable -> its group.
    """

    def __init__(self, optimizers: Mapping[Any, Any], group_of: Callable[[str], Any]) -> None:
        super().__init__(use_locking=False, name='groups')
        self._optimizers, self._group_of = optimizers, group_of

    def apply_gradients(
        self, grads_and_vars: Iterable[Any], global_step: Any = None, name: str | None = None
    ) -> Any:
        groups: dict[Any, list] = {}
        for gradient, variable in grads_and_vars:
            groups.setdefault(self._group_of(variable.op.name), []).append((gradient, variable))
        # Outside the scope of loss scaling: the scalars of Adam have other names in each group.
        with tf.name_scope(None):
            updates = [
                self._optimizers[group].apply_gradients(part) for group, part in groups.items()
            ]
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
    rates = {False: rate, True: rate * options.backbone_rate}
    return _Groups(
        {(slow, is_late): make(rates[slow], options) for slow in rates for is_late in rates},
        lambda name: (name in backbone, name in late),
    )
