"""npu_bridge.estimator.npu.npu_optimizer: optimizers that average the gradients of the ranks inside
compute_gradients.
"""

import os

import tensorflow.compat.v1 as tf

from ...hccl import hccl_ops


def _averaged(gradients):
    size = int(os.getenv('RANK_SIZE', '1'))
    if size <= 1:
        return gradients
    return [
        (grad if grad is None else hccl_ops.allreduce(grad, 'sum') / size, variable)
        for grad, variable in gradients
    ]


def npu_distributed_optimizer_wrapper(tf_optimizer):
    compute = tf_optimizer.compute_gradients
    tf_optimizer.compute_gradients = lambda *args, **kwargs: _averaged(compute(*args, **kwargs))
    return tf_optimizer


class NPUDistributedOptimizer(tf.train.Optimizer):
    def __init__(self, tf_optimizer, is_weight_update_sharding=False, name=None):
        self._optimizer = tf_optimizer
        super().__init__(
            name=name or 'Distributed' + type(tf_optimizer).__name__, use_locking=False
        )

    def compute_gradients(self, *args, **kwargs):
        return _averaged(self._optimizer.compute_gradients(*args, **kwargs))

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        return self._optimizer.apply_gradients(grads_and_vars, global_step, name)
