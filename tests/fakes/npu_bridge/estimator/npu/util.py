"""npu_bridge.estimator.npu.util: iteration sinking."""

import tensorflow.compat.v1 as tf

from ... import NpuRefuses


def create_or_get_var(var_name):
    collection = 'npu_runconfig_' + var_name
    found = tf.get_default_graph().get_collection(collection)
    if found:
        return found[0]
    with tf.variable_scope('npu_runconfig', reuse=tf.AUTO_REUSE):
        return tf.get_variable(
            var_name,
            [],
            tf.int64,
            tf.zeros_initializer(),
            trainable=False,
            use_resource=True,
            collections=[collection, tf.GraphKeys.LOCAL_VARIABLES],
        )


def _iteration_op(train_op):
    if not isinstance(train_op, tf.Operation):
        raise ValueError(
            f"The incoming 'train_op' type is '{train_op.dtype.name}', and the need type is "
            "'Operation'"
        )
    op = tf.group(train_op, name='IterationOp')
    if op.name != 'IterationOp':
        raise NpuRefuses(
            f'expected the node name IterationOp, received {op.name}: made twice, or not at the '
            'root name scope'
        )
    return op


class IterationPerLoop:
    def create_iteration_per_loop_var(self, train_op):
        self._variables = [
            create_or_get_var(name) for name in ('iterations_per_loop', 'loop_cond', 'zero', 'one')
        ]
        return _iteration_op(train_op)

    def load_iteration_per_loop_var(self, sess, iterations_per_loop=1):
        if not isinstance(iterations_per_loop, int):
            raise TypeError(f'iterations_per_loop must be int, got {type(iterations_per_loop)}')
        if iterations_per_loop <= 0:
            raise ValueError(f'iterations_per_loop must be positive, got {iterations_per_loop}')
        for variable, value in zip(self._variables, (iterations_per_loop - 1, 0, 0, 1)):
            variable.load(value, session=sess)


def set_iteration_per_loop(sess, train_op, iterations_per_loop=1):
    loop = IterationPerLoop()
    op = loop.create_iteration_per_loop_var(train_op)
    loop.load_iteration_per_loop_var(sess, iterations_per_loop)
    return op
