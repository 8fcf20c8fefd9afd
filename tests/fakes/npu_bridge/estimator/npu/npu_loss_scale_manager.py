"""npu_bridge.estimator.npu.npu_loss_scale_manager. Variables are named as by
contrib.mixed_precision of TensorFlow 1.15, its base.
"""

import tensorflow.compat.v1 as tf

from ... import NpuRefuses


class FixedLossScaleManager:
    def __init__(self, loss_scale, enable_overflow_check=True):
        if loss_scale < 1:
            raise ValueError('loss scale must be at least 1.')
        self._loss_scale = tf.convert_to_tensor(loss_scale, dtype=tf.float32, name='loss_scale')
        self._enable_overflow_check = enable_overflow_check

    def get_loss_scale(self):
        return self._loss_scale

    def get_enable_overflow_check(self):
        return self._enable_overflow_check

    def update_loss_scale(self, finite_grads):
        return tf.no_op()


class ExponentialUpdateLossScaleManager:
    def __init__(
        self,
        init_loss_scale,
        incr_every_n_steps,
        decr_every_n_nan_or_inf=2,
        incr_ratio=2,
        decr_ratio=0.8,
    ):
        if tf.get_default_graph()._control_dependencies_for_inputs([]):
            raise NpuRefuses(
                'ExponentialUpdateLossScaleManager inside control_dependencies: it runs in '
                'another order than written'
            )
        self._up_after, self._down_after = incr_every_n_steps, decr_every_n_nan_or_inf
        self._up, self._down = incr_ratio, decr_ratio
        self._loss_scale = tf.get_variable(
            'loss_scale',
            [],
            initializer=tf.constant_initializer(float(init_loss_scale)),
            trainable=False,
        )
        self._good, self._bad = (
            tf.get_variable(name, [], tf.int32, tf.zeros_initializer(), trainable=False)
            for name in ('good_steps', 'bad_steps')
        )

    def get_loss_scale(self):
        return self._loss_scale

    def update_loss_scale(self, finite_grads):
        good = tf.where(finite_grads, self._good + 1, 0)
        bad = tf.where(finite_grads, self._bad, self._bad + 1)
        up, down = good >= self._up_after, bad >= self._down_after
        scale = tf.where(
            up,
            self._loss_scale * self._up,
            tf.where(down, tf.maximum(1.0, self._loss_scale * self._down), self._loss_scale),
        )
        fresh = tf.logical_or(up, down)
        with tf.control_dependencies([scale, good, bad, fresh]):
            return tf.group(
                tf.assign(self._loss_scale, scale),
                tf.assign(self._good, tf.where(fresh, 0, good)),
                tf.assign(self._bad, tf.where(fresh, 0, bad)),
            )
