"""The stand-in for the adapter refuses what the real one refuses: else the tests on it would prove nothing."""
import textwrap

import pytest

from test_npu import python
from trainers import npu

COMMON = '''
    from gitloss.backend import tf
    from trainers import npu, npu_options
    from trainers.options import Options
    tf.disable_eager_execution()
    before = tf.Session.__init__
    init, util = npu.adapter(), npu.adapter('estimator.npu.util')
    managers = npu.adapter('estimator.npu.npu_loss_scale_manager')
    assert tf.Session.__init__ is not before
    config = npu.session_config(npu_options.settings(Options(device='npu')))
    sunk = npu.session_config(npu_options.settings(Options(device='npu', iterations_per_loop=2, steps=2)))
    settings = config.graph_options.rewrite_options.custom_optimizers[0].parameter_map
    weight = tf.get_variable('weight', [2], initializer=tf.zeros_initializer(), use_resource=True)
    step = tf.train.get_or_create_global_step()

    def train(loss):
        return tf.train.GradientDescentOptimizer(0.1).minimize(loss, step)

    def run(fetch, config=config, feed=None):
        with tf.Session(config=config) as session:
            session.run(tf.global_variables_initializer())
            session.run(fetch, feed)
'''
REFUSED = [
    ('a session without a ConfigProto', 'tf.Session()'),
    ('unknown key precison_mode', 'settings["precison_mode"].s = b"force_fp32"; tf.Session(config=config)'),
    ('hccl_timeout in field s, expected i', 'settings["hccl_timeout"].s = b"600"; tf.Session(config=config)'),
    ('remapping and memory_optimization must be OFF',
     'config.graph_options.rewrite_options.memory_optimization = 0; tf.Session(config=config)'),
    ('expected one NpuOptimizer', 'tf.Session(config=tf.ConfigProto())'),
    ('precision_mode and precision_mode_v2', 'settings["precision_mode_v2"].s = b"origin"; tf.Session(config=config)'),
    ('modify_mixlist without a mixed mode', 'settings["precision_mode"].s = b"force_fp32"; settings["modify_mixlist"].s = b"x"; '
                                            'tf.Session(config=config)'),
    ('a dump without a dump_path', 'settings["enable_dump"].b = True; tf.Session(config=config)'),
    ('sinking needs enable_data_pre_proc', 'settings["iterations_per_loop"].i = 2; tf.Session(config=config)'),
    ('is float64', 'run(train(tf.cast(tf.reduce_sum(tf.cast(weight, tf.float64) ** 2), tf.float32)))'),
    ('not a static one', 'x = tf.placeholder(tf.float32, [None])\n'
                         'run(train(tf.reduce_sum(weight) * tf.reduce_sum(tf.abs(x))), feed={x: [1.0]})'),
    ('of type Unique', 'run(train(tf.reduce_sum(weight) * tf.cast(tf.unique(tf.constant([3, 3]))[1][0], tf.float32)))'),
    ('of type PyFunc', 'run(train(tf.reduce_sum(weight) * tf.reshape(tf.py_func(lambda x: x, [tf.constant(1.0)], tf.float32), [])))'),
    ('expected the node name IterationOp', 'op = train(tf.reduce_sum(weight)); npu.sunk(op, 2); npu.sunk(op, 2)'),
    ('expected the node name IterationOp', 'op = train(tf.reduce_sum(weight))\nwith tf.name_scope("inner"): npu.sunk(op, 2)'),
    ('a feed_dict in a sunk loop', 'x = tf.placeholder(tf.float32, []); op, _ = npu.sunk(train(tf.reduce_sum(weight) * x), 2); '
                                   'run(op, sunk, {x: 1.0})'),
    ('a training step beside the IterationOp', 'run(train(tf.reduce_sum(weight)), sunk)'),
    ('inside control_dependencies', 'with tf.control_dependencies([step]): managers.ExponentialUpdateLossScaleManager(2.0, 10)'),
    ('variable initialisers together', 'it = tf.data.make_initializable_iterator(tf.data.Dataset.range(3)); '
                                       'run([it.initializer, weight.initializer])'),
]


@pytest.mark.parametrize('said, code', REFUSED)
def test_refused(said, code):
    result = python('-c', textwrap.dedent(COMMON) + code)
    told = [line for line in result.stderr.splitlines() if 'NpuRefuses: ' in line and said in line]
    assert result.returncode == 1 and told, result.stderr


def test_what_is_right_is_not_refused():
    """The same lines without the mistakes; two sunk steps of plain gradient descent on sum(w) take 0.1 from w each."""
    code = '''
        op, load = npu.sunk(train(tf.reduce_sum(weight)), 2)
        with tf.Session(config=sunk) as session:
            session.run(tf.global_variables_initializer())
            load(session)
            session.run(op)
            print(session.run(weight).tolist(), int(session.run(step)))
        %s
    '''
    legacy = '' if npu._ADAPTER != 'npu_bridge' else 'print(init.npu_config_proto().graph_options.rewrite_options.memory_optimization)'
    result = python('-c', textwrap.dedent(COMMON) + textwrap.dedent(code % legacy))
    assert result.returncode == 0, result.stderr
    assert '-0.2' in result.stdout and result.stdout.splitlines()[0].endswith('] 2')
