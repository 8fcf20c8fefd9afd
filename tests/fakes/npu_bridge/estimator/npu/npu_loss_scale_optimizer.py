"""npu_bridge.estimator.npu.npu_loss_scale_optimizer: after an overflow the update is skipped, and
the global step stays.
"""

import os

import tensorflow.compat.v1 as tf

from ...hccl import hccl_ops
from .npu_loss_scale_manager import FixedLossScaleManager


def _float_status(grads):
    """0, or more after an overflow: a gradient that is not finite, or an update listed in
    FAKE_NPU_OVERFLOW. On a card this is a register that saturating arithmetic sets, while gradients
    stay finite.
    """
    status = tf.reduce_sum(
        tf.stack(
            [
                tf.reduce_sum(tf.cast(tf.logical_not(tf.is_finite(grad)), tf.float32))
                for grad in grads
            ]
        )
    )
    named = [int(number) for number in os.environ.get('FAKE_NPU_OVERFLOW', '').split(',') if number]
    if named:
        count = tf.get_variable(
            'fake_updates',
            [],
            tf.int32,
            tf.zeros_initializer(),
            trainable=False,
            use_resource=True,
            collections=['fake', tf.GraphKeys.LOCAL_VARIABLES],
        )
        status += tf.reduce_sum(tf.cast(tf.equal(tf.assign_add(count, 1) - 1, named), tf.float32))
    return status


class NPULossScaleOptimizer(tf.train.Optimizer):
    def __init__(self, opt, loss_scale_manager, is_distributed=False):
        self._opt, self._loss_scale_manager, self._is_distributed = (
            opt,
            loss_scale_manager,
            is_distributed,
        )

    def compute_gradients(self, loss, var_list=None, **kwargs):
        scale = self._loss_scale_manager.get_loss_scale()
        gradients = self._opt.compute_gradients(
            loss * tf.cast(scale, loss.dtype), var_list=var_list, **kwargs
        )
        return [
            (grad if grad is None else grad * tf.cast(tf.reciprocal(scale), grad.dtype), variable)
            for grad, variable in gradients
        ]

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        manager = self._loss_scale_manager
        finite = tf.constant(True)
        if not isinstance(manager, FixedLossScaleManager) or manager.get_enable_overflow_check():
            status = _float_status([grad for grad, _ in grads_and_vars if grad is not None])
            if self._is_distributed:
                status = hccl_ops.allreduce(status, 'sum', fusion=0)
            finite = tf.equal(status, 0.0)
        update = tf.cond(
            finite, lambda: self._opt.apply_gradients(grads_and_vars, global_step, name), tf.no_op
        )
        return tf.group(update, manager.update_loss_scale(finite))
