"""The fake adapter rejects what the real one rejects: otherwise tests on it would prove nothing."""

import json
import textwrap

import pytest

from fake_npu import python
from trainers.devices import npu

# One process runs all rows, each in a graph of its own, and prints their outcomes.
PROGRAM = """
    import json, os, sys, tempfile, traceback
    from gitloss.backend import tf
    from trainers.devices import npu, npu_options
    from trainers.options import Options
    tf.disable_eager_execution()
    before = tf.Session.__init__
    init, util = npu.adapter(), npu.adapter('estimator.npu.util')
    hccl = npu.adapter('hccl.hccl_ops')
    managers = npu.adapter('estimator.npu.npu_loss_scale_manager')
    assert tf.Session.__init__ is not before
    access = os.access
    os.environ.update(RANK_ID='0', RANK_SIZE='2')
    os.environ.update(FAKE_HCCL=tempfile.mkdtemp(), FAKE_HCCL_TIMEOUT='0.2')

    def train(loss):
        return tf.train.GradientDescentOptimizer(0.1).minimize(loss, step)

    def run(fetch, made_for=None, feed=None, load=None):
        with tf.Session(config=made_for or config) as session:
            session.run(tf.global_variables_initializer())
            if load:
                load(session)
            session.run(fetch, feed)

    said = []
    for code in json.loads(sys.argv[1]):
        with tf.Graph().as_default():
            config = npu.session_config(npu_options.settings(Options(device='npu')))
            two_steps = Options(device='npu', iterations_per_loop=2, steps=2)
            sunk = npu.session_config(npu_options.settings(two_steps))
            settings = config.graph_options.rewrite_options.custom_optimizers[0].parameter_map
            zeros = tf.zeros_initializer()
            weight = tf.get_variable('weight', [2], initializer=zeros, use_resource=True)
            step = tf.train.get_or_create_global_step()
            try:
                exec(code)
                said.append('')
            except Exception:
                said.append(traceback.format_exc())
            os.access = access
    print(json.dumps(said))
"""
REFUSED = [
    ('a session without a ConfigProto', 'tf.Session()'),
    (
        'unknown key precison_mode',
        'settings["precison_mode"].s = b"force_fp32"; tf.Session(config=config)',
    ),
    (
        'hccl_timeout in field s, expected i',
        'settings["hccl_timeout"].s = b"600"; tf.Session(config=config)',
    ),
    (
        'remapping and memory_optimization must be OFF',
        'config.graph_options.rewrite_options.memory_optimization = 0; tf.Session(config=config)',
    ),
    ('expected one NpuOptimizer', 'tf.Session(config=tf.ConfigProto())'),
    (
        'precision_mode and precision_mode_v2',
        'settings["precision_mode_v2"].s = b"origin"; tf.Session(config=config)',
    ),
    (
        'modify_mixlist without a mixed mode',
        'settings["precision_mode"].s = b"force_fp32"; settings["modify_mixlist"].s = b"x"; '
        'tf.Session(config=config)',
    ),
    ('a dump without a dump_path', 'settings["enable_dump"].b = True; tf.Session(config=config)'),
    (
        'sinking needs enable_data_pre_proc',
        'settings["iterations_per_loop"].i = 2; tf.Session(config=config)',
    ),
    (
        'is float64',
        'run(train(tf.cast(tf.reduce_sum(tf.cast(weight, tf.float64) ** 2), tf.float32)))',
    ),
    (
        'not a static one',
        'x = tf.placeholder(tf.float32, [None])\n'
        'run(train(tf.reduce_sum(weight) * tf.reduce_sum(tf.abs(x))), feed={x: [1.0]})',
    ),
    (
        'of type Unique',
        'run(train(tf.reduce_sum(weight) * tf.cast(tf.unique(tf.constant([3, 3]))[1][0], '
        'tf.float32)))',
    ),
    (
        'of type PyFunc',
        'run(train(tf.reduce_sum(weight) * tf.reshape(tf.py_func(lambda x: x, '
        '[tf.constant(1.0)], tf.float32), [])))',
    ),
    (
        'a dump without a dump_path',
        'os.access = lambda *_: False; settings["enable_dump"].b = True; '
        'settings["dump_path"].s = b"/"; tf.Session(config=config)',
    ),
    (
        'enable_dump and enable_dump_debug',
        'settings["enable_dump"].b = settings["enable_dump_debug"].b = True; '
        'tf.Session(config=config)',
    ),
    ('is float64', 'run(tf.cast(weight, tf.float64))'),  # in a run that trains nothing
    (
        'not a static one',
        'x = tf.placeholder(tf.float32, [None])\nrun(tf.reduce_sum(tf.abs(x)), feed={x: [1.0]})',
    ),
    (
        'expected the node name IterationOp',
        'op = train(tf.reduce_sum(weight)); npu.sunk(op, 2); npu.sunk(op, 2)',
    ),
    (
        'expected the node name IterationOp',
        'op = train(tf.reduce_sum(weight))\nwith tf.name_scope("inner"): npu.sunk(op, 2)',
    ),
    (
        'a feed_dict in a sunk loop',
        'x = tf.placeholder(tf.float32, []); op, _ = npu.sunk(train(tf.reduce_sum(weight) * x), '
        '2); '
        'run(op, sunk, {x: 1.0})',
    ),
    ('a training step beside the IterationOp', 'run(train(tf.reduce_sum(weight)), sunk)'),
    (
        'inside control_dependencies',
        'with tf.control_dependencies([step]): managers.ExponentialUpdateLossScaleManager(2.0, 10)',
    ),
    (
        'variable initialisers together',
        'it = tf.data.make_initializable_iterator(tf.data.Dataset.range(3)); '
        'run([it.initializer, weight.initializer])',
    ),
    (
        'variable initialisers together',
        'it = tf.data.make_initializable_iterator(tf.data.Dataset.range(3)); '
        'run(tf.group(it.initializer, weight.initializer))',
    ),
    (
        'variable initialisers together',
        'it = tf.data.make_initializable_iterator(tf.data.Dataset.range(3))\n'
        'with tf.control_dependencies([it.initializer]): run(tf.assign(weight, [1.0, 2.0]))',
    ),
    (
        'a one-shot iterator in a sunk loop',
        'it = tf.data.make_one_shot_iterator(tf.data.Dataset.range(3)); '
        'run(npu.sunk(train(tf.reduce_sum(weight)), 2)[0], sunk)',
    ),
    (
        'was loaded as another number',
        'op, load = npu.sunk(train(tf.reduce_sum(weight)), 3); run(op, sunk, load=load)',
    ),
    ('allreduce of float64', 'hccl.allreduce(tf.cast(weight, tf.float64), "sum")'),
    ('allgather of a dynamic shape', 'hccl.allgather(tf.placeholder(tf.float32, [None, 2]), 2)'),
    ('rank_size 3', 'hccl.allgather(weight, 3)'),
    ('reduction mean', 'hccl.allreduce(weight, "mean")'),
    ('broadcast takes a list', 'hccl.broadcast(weight, 0)'),
    # One rank alone.
    (
        'rank 0 waits for rank 1 at allreduce-0-float32-2',
        'run(hccl.allreduce(weight, "sum"))',
    ),
    # Two ranks whose graphs differ.
    (
        'rank 0 waits for rank 1 at allgather-0-float32-2',
        'os.environ["RANK_ID"] = "1"\n'
        'with tf.Graph().as_default(), tf.Session(config=config) as session:\n'
        '    try: session.run(hccl.allgather(tf.zeros([4]), 2))\n'
        '    except Exception as error: assert "rank 1 waits for rank 0" in str(error)\n'
        'os.environ["RANK_ID"] = "0"\nrun(hccl.allgather(weight, 2))',
    ),
]
# The same lines without the mistakes; two sunk steps of plain gradient descent on sum(w) take 0.1
# from w each.
RIGHT = """
op, load = npu.sunk(train(tf.reduce_sum(weight)), 2)
with tf.Session(config=sunk) as session:
    session.run(tf.global_variables_initializer())
    load(session)
    session.run(op)
    assert [round(float(value), 6) for value in session.run(weight)] == [-0.2, -0.2]
    assert session.run(step) == 2
"""
LEGACY = 'assert init.npu_config_proto().graph_options.rewrite_options.memory_optimization == 2'


@pytest.fixture(scope='module')
def told():
    """The outcome of each row: a traceback, or an empty string."""
    rows = [code for _, code in REFUSED] + [RIGHT, LEGACY if npu.ADAPTER == 'npu_bridge' else '']
    result = python('-c', textwrap.dedent(PROGRAM), json.dumps(rows))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize('row', range(len(REFUSED)), ids=[said for said, _ in REFUSED])
def test_refused(told, row):
    assert [
        line
        for line in told[row].splitlines()
        if 'NpuRefuses: ' in line and REFUSED[row][0] in line
    ], told[row]


def test_what_is_right_is_not_refused(told):
    assert told[len(REFUSED) :] == ['', '']
