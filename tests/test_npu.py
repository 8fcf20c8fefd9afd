"""The NPU without a card: ranks, devices, the training graph, and whole runs on
tests/fakes/npu_bridge.

The fake computes on the CPU and raises NpuRefuses where the adapter would fail, silently ignore
something, or hang. Its npu_init is imported only in separate processes: like the real one it
changes every Session. Starting a process takes seconds, so each one makes many runs.
"""

import collections
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import crew
import toys
from conftest import CARD_VARIABLES, FAKES
from gitloss import data
from gitloss.backend import tf
from helpers import relative_error, static_shapes
from trainers import checkpoints, devices, evaluate, export, run
from trainers.checkpoints import rundir
from trainers.devices import npu, npu_options
from trainers.engine.graph import TrainingGraph
from trainers.options import ROOT, Options, parse
from trainers.workers import engines as distribution


@pytest.fixture
def fakes(monkeypatch):
    """Makes the fake importable. Its imported modules, except npu_init, are forgotten
    afterwards.
    """
    monkeypatch.syspath_prepend(FAKES)
    yield
    for name in [
        name for name in sys.modules if name.split('.')[0] in ('npu_bridge', 'npu_device')
    ]:
        assert not name.endswith('npu_init')
        del sys.modules[name]


def python(*arguments, **variables):
    """Runs a process with the fake adapter on its path."""
    environment = {name: value for name, value in os.environ.items() if name not in CARD_VARIABLES}
    environment.update(
        variables, PYTHONPATH=os.pathsep.join([ROOT, os.path.join(ROOT, 'tests'), FAKES])
    )
    return subprocess.run(
        [sys.executable] + list(arguments),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )


RUNS = """
import contextlib, io, json, os, sys
import crew
from trainers import run
results = []
for flags, variables in json.loads(sys.argv[2]):
    os.environ.update(variables)
    with contextlib.redirect_stderr(io.StringIO()) as told:
        work = {}
        if sys.argv[1] == 'crew':
            work = {'work': lambda settings: crew.trainer_of(settings).fit() and 0}
        results.append([run.main(arguments=flags, **work), told.getvalue()])
    for name in variables:
        del os.environ[name]
    if sys.argv[1] == 'crew' and results[-1][0]:
        break  # the other rank waits for this one, and has lost it
print(json.dumps(results))
"""
Result = collections.namedtuple('Result', 'returncode stderr')


def job(settings, *flags, **variables):
    """One run of `on_the_fake`."""
    return toys.flags_of(settings) + list(flags), dict(
        variables, FAKE_NPU_RECORD=settings.exp_save_dir + '.record'
    )


def on_the_fake(*jobs, kind='run'):
    """The Result of each job, one after the other in one process; kind "crew": as a worker of
    tests/crew.py.
    """
    result = python('-c', RUNS, kind, json.dumps(jobs))
    assert result.returncode == 0, result.stderr
    return [Result(*row) for row in json.loads(result.stdout.splitlines()[-1])]


def here(settings, *flags):
    """The exit status of a run in this process, where nothing has replaced the sessions."""
    return run.main(toys.flags_of(settings) + list(flags))


def records(settings, kind):
    with open(settings.exp_save_dir + '.record') as file:
        return [row for row in map(json.loads, file) if kind in row]


def history_of(settings):
    with open(os.path.join(settings.run_dir, 'history.jsonl')) as file:
        return [json.loads(line) for line in file]


# --- ranks ----------------------------------------------------------------------------------------


def test_one_card_needs_no_rank_table():
    assert npu.rank_environment({}) == (0, 1) and npu.rank_environment(
        {'RANK_SIZE': '1', 'RANK_ID': '5'}
    ) == (0, 1)


def rank_table(path, size, device=0):
    """Writes a rank table of version 1.0: `size` ranks on two hosts, rank r on device r + `device`.
    Returns its path.
    """
    cards = [
        {
            'device_id': str(rank + device),
            'device_ip': f'192.168.100.{rank}',
            'rank_id': str(rank),
        }
        for rank in range(size)
    ]
    servers = [{'server_id': str(host), 'device': cards[host::2]} for host in range(2)]
    path.write_text(
        json.dumps(
            {'version': '1.0', 'server_count': '2', 'server_list': servers, 'status': 'completed'}
        )
    )
    return str(path)


TABLE = 'RANK_TABLE_FILE: expected a rank table in JSON with RANK_SIZE=8. Received: '


@pytest.mark.parametrize(
    'changes, said',
    [
        (
            {'RANK_SIZE': 'eight'},
            "RANK_SIZE: expected a whole number below 32769. Received: 'eight'",
        ),
        ({'RANK_ID': None}, "RANK_ID: expected a whole number below 8. Received: 'none'"),
        ({'RANK_ID': '8'}, "RANK_ID: expected a whole number below 8. Received: '8'"),
        (
            {'JOB_ID': None},
            'JOB_ID: expected any name, the same for all ranks, with RANK_SIZE=8. Received: none',
        ),
        (
            {'DEVICE_ID': None},
            'ASCEND_DEVICE_ID: expected the card of this rank with RANK_SIZE=8. Received: none, '
            'nor DEVICE_ID',
        ),
        ({'ASCEND_DEVICE_ID': 'x'}, "ASCEND_DEVICE_ID: expected a device number. Received: 'x'"),
        ({'ASCEND_DEVICE_ID': '3'}, TABLE + '{table}, with rank 7 on device 7, not on device 3'),
        (
            {'RANK_TABLE_FILE': '/nowhere.json'},
            TABLE + "'/nowhere.json', No such file or directory",
        ),
        ({'RANK_TABLE_FILE': __file__}, TABLE),
    ],
)
def test_the_ranks_environment_is_checked(tmp_path, monkeypatch, changes, said):
    """Reads the given environment: that of the process differs."""
    monkeypatch.setenv('ASCEND_DEVICE_ID', 'not a number')
    table = rank_table(tmp_path / 'table.json', 8)
    environment = {
        'RANK_SIZE': '8',
        'RANK_ID': '7',
        'JOB_ID': '10087',
        'DEVICE_ID': '7',
        'RANK_TABLE_FILE': table,
    }
    assert npu.rank_environment(environment) == (7, 8)
    environment.update(changes)
    with pytest.raises(ValueError) as caught:
        npu.rank_environment(
            {name: value for name, value in environment.items() if value is not None}
        )
    assert str(caught.value).startswith(said.replace('{table}', repr(table))) and '\n' not in str(
        caught.value
    )


@pytest.mark.parametrize(
    'text, said',
    [
        ('[' * 9999, 'not JSON: '),
        ('[]', 'without the server_list[].device[].rank_id'),
        ('{}', 'without the server_list[].device[].rank_id'),
        ('{"server_list": [{"device": ["0"]}]}', 'without the server_list[].device[].rank_id'),
        ('{"server_list": []}', 'with 0 ranks'),
        (
            '{"server_list": [{"device": [{"rank_id": "0", "device_id": "0"}, {"rank_id": "3", '
            '"device_id": "1"}]}]}',
            'with rank 1 on no device, not on device 1',
        ),
        ('{"group_list": [{"anything": 1}]}', None),
    ],
)
def test_the_rank_table_is_checked(tmp_path, text, said):
    (tmp_path / 'table.json').write_text(text)
    environment = {
        'RANK_SIZE': '2',
        'RANK_ID': '1',
        'JOB_ID': '1',
        'DEVICE_ID': '1',
        'RANK_TABLE_FILE': str(tmp_path / 'table.json'),
    }
    if said is None:
        assert npu.rank_environment(environment) == (1, 2)
        return
    with pytest.raises(ValueError) as caught:
        npu.rank_environment(environment)
    assert "table.json', " + said in str(caught.value)


def test_ranks_may_dump_each_to_a_folder_of_its_own_and_differ_in_nothing_else():
    """In another order too, and with a file that this machine does not have."""

    def facts(option):
        return [Options(npu_option=option).as_dict(), {}]

    chief = facts(
        'dump_path=/0/dump,enable_dump_debug=true,modify_mixlist=/nowhere,profiling_options={"output":"/0","a":1},work_path=/0'
    )
    rundir.check_worker(
        1,
        facts(
            'profiling_options={"output":"/1","a":1},enable_dump_debug=true,work_path=/1,dump_path=/1,'
            'modify_mixlist=/nowhere,session_device_id=1,local_rank_id=1,debug_dir=/1'
        ),
        chief,
    )
    with pytest.raises(ValueError) as caught:
        rundir.check_worker(
            1,
            facts('enable_dump_debug=true,dump_path=/1,modify_mixlist=/nowhere,deterministic=1'),
            chief,
        )
    assert str(caught.value) == (
        'worker 1: expected the flags of worker 0. Received: --npu_option (was '
        'enable_dump_debug=true,modify_mixlist=/nowhere, is '
        'deterministic=1,enable_dump_debug=true,modify_mixlist=/nowhere)'
    )


HCCL = """
    import os, sys, tempfile, threading
    import numpy as np
    from gitloss.backend import tf
    from trainers import devices
    from trainers.workers import engines as distribution
    from trainers.devices import npu, npu_options
    from trainers.options import Options
    SIZE = 3
    os.environ.update(RANK_SIZE=str(SIZE), JOB_ID='1')
    os.environ.update(RANK_TABLE_FILE=sys.argv[1], FAKE_HCCL=tempfile.mkdtemp())
    results, failures = [None] * SIZE, []

    def rank(number):
        os.environ['RANK_ID'] = os.environ['ASCEND_DEVICE_ID'] = str(number)
        graph = tf.Graph()
        with graph.as_default():
            device = devices.choose(Options(device='npu'))
            group = distribution.choose(Options(device='npu', batch_size=3), device)
            assert type(group) is distribution.Hccl
            x = tf.constant([[1.0 + number, 2.0], [3.0, 4.0 * number]])
            everything = group.all_gather(x)
            labels = group.all_gather(tf.constant([number, 10 * number]))
            weights = tf.reshape(tf.range(6.0 * 2), [6, 2])
            gradient = tf.gradients(tf.reduce_sum(weights * tf.square(everything)), x)[0]
            scalar, vector = tf.constant(float(number)), tf.constant([1.0, 2.0, number])
            sums = group.all_reduce([x, scalar, vector])
            initial = {'centers': np.float32([number, 7 * number]), 'updates': np.int32([number])}
            frozen, counts = (
                tf.get_variable(name, initializer=value, trainable=False, use_resource=True)
                for name, value in initial.items()
            )
            spread = group.broadcast(tf.global_variables())
            assert (group.rank, group.size, group.is_chief) == (number, SIZE, number == 0)
            assert everything.shape.as_list() == [6, 2]
            init = tf.global_variables_initializer()
        return graph, init, [everything, labels, gradient, sums], spread, [frozen, counts]

    def run(number, graph, init, fetches, spread, variables):
        try:
            config = npu.session_config(npu_options.settings(Options(device='npu')))
            with tf.Session(graph=graph, config=config) as session:
                session.run(init)
                values = session.run(fetches)
                session.run(spread)
                results[number] = values + [session.run(variables)]
        except Exception as error:
            failures.append(str(error))

    arguments = [(number,) + rank(number) for number in range(SIZE)]
    threads = [threading.Thread(target=run, args=one) for one in arguments]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures, failures
    rows = np.float32([[1, 2], [3, 0], [2, 2], [3, 4], [3, 2], [3, 8]])
    for number, (everything, labels, gradient, sums, variables) in enumerate(results):
        np.testing.assert_array_equal(everything, rows)
        np.testing.assert_array_equal(labels, [0, 0, 1, 10, 2, 20])
        gradients = 2 * np.arange(12.0).reshape(6, 2) * rows
        np.testing.assert_array_equal(gradient, gradients[2 * number:2 * number + 2])
        np.testing.assert_array_equal(sums[0], [[6, 6], [9, 12]])
        assert sums[1] == 3
        np.testing.assert_array_equal(sums[2], [3, 6, 3])
        np.testing.assert_array_equal(variables[0], [0, 0])
        np.testing.assert_array_equal(variables[1], [0])
    print('good')
"""


def test_hccl_gathers_sums_and_broadcasts(tmp_path):
    """Three ranks as threads. Rank r has the samples (1 + r, 2) and (3, 4 r), which are gathered in
    order. The gradient of sum(w x^2) is 2 w x; each rank gets that of its own samples. Sums over r
    = 0, 1, 2: 1+2+3, 3*2, 3*3, 4*(0+1+2). The chief broadcasts its values, also of variables that
    are not trainable.
    """
    result = python('-c', textwrap.dedent(HCCL), rank_table(tmp_path / 'table.json', 3))
    assert result.stdout.strip() == 'good', result.stderr


@pytest.mark.parametrize(
    'device, flags, said',
    [
        (
            'npu',
            {'batch_size': 12},
            '--batch_size: expected a multiple of the 8 workers, it is the batch of all. '
            'Received: 12',
        ),
        (
            'npu',
            {'collective_timeout': 120.0},
            '--collective_timeout: expected --npu_option=hccl_timeout=SECONDS on npu, which has '
            'this clock '
            'alone. Received: 120',
        ),
        ('cpu', {}, 'RANK_SIZE: expected 1 on any device but npu. Received: 8 on cpu (its reason)'),
    ],
)
def test_what_ranks_cannot_do_is_refused(monkeypatch, tmp_path, device, flags, said):
    """On another device each of the eight ranks would train alone."""
    for name, value in (
        ('RANK_SIZE', '8'),
        ('RANK_ID', '1'),
        ('JOB_ID', '1'),
        ('ASCEND_DEVICE_ID', '1'),
        ('RANK_TABLE_FILE', rank_table(tmp_path / 'table.json', 8)),
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError) as caught:
        distribution.choose(
            Options(device=device, **flags), devices.Device(device, 'its reason', None, True)
        )
    assert str(caught.value) == said


# --- which device ---------------------------------------------------------------------------------


def test_auto_takes_the_npu_where_adapter_and_card_are_and_says_why(runs):
    result = runs['auto'][1]
    assert result.returncode == 0, result.stderr
    assert (
        'device npu (the adapter of CANN is there and ASCEND_DEVICE_ID is set; allow_mix_precision)'
        in result.stderr
    )


def test_auto_does_not_import_the_adapter_without_a_card(fakes):
    device = devices.choose(Options())
    assert (device.name, device.reason) == ('cpu', 'no NPU and no GPU found')
    assert npu.ADAPTER.split('.')[0] not in sys.modules


NO_ADAPTER = "No module named '{}'; is CANN installed and its set_env.sh sourced?".format(
    npu.ADAPTER.split('.')[0]
)
BROKEN = (
    'libge_runner.so: cannot open shared object file: No such file or directory; is CANN '
    'installed and its set_env.sh sourced?'
)


@pytest.mark.parametrize('why', [NO_ADAPTER, BROKEN])
def test_a_missing_adapter_or_library_is_one_line_and_auto_goes_on_without(
    request, tmp_path, monkeypatch, capsys, why
):
    """With auto, a card set and no importable adapter the run is on the CPU and says so."""
    if why == BROKEN:
        request.getfixturevalue('fakes')
        monkeypatch.setenv('FAKE_NPU_BROKEN', '1')
    monkeypatch.setenv('DEVICE_ID', '2')
    device = devices.choose(Options())
    assert (device.name, device.reason) == ('cpu', 'no GPU found; no NPU: ' + why)
    assert here(toys.options(tmp_path, device='npu')) == 2
    expected = (
        f'--device: expected {npu.ADAPTER} of CANN to be importable for npu on TensorFlow '
        f'{tf.__version__}. Received: '
    )
    assert capsys.readouterr().err == f'trainers.run: {expected}{why}\n'
    assert not os.path.exists(str(tmp_path / 'run'))


@pytest.mark.parametrize(
    'flags, said',
    [
        (
            {'npu_option': 'deterministic=1'},
            '--npu_option: expected --device=npu, which alone has it. Received: device cpu '
            '(--device=cpu)',
        ),
        (
            {'iterations_per_loop': 4},
            '--iterations_per_loop: expected --device=npu, which alone has it. Received: device '
            'cpu (--device=cpu)',
        ),
    ],
)
def test_other_devices_refuse_what_only_the_npu_has(flags, said):
    with pytest.raises(ValueError) as caught:
        devices.choose(Options(device='cpu', **flags))
    assert str(caught.value) == said


def test_nothing_imports_the_adapter_unless_the_device_is_npu(tmp_path):
    """Every module of the three packages is imported, a run on the CPU is made, its checkpoint
    evaluated and exported, with a finder that raises at the names of the adapter, the fake on the
    path, and the environment of a card.
    """
    from sources import MODULES

    settings = toys.options(tmp_path, steps=2, update_centers=2)
    code = """
        import importlib, sys

        class Alarm:
            def find_spec(self, name, path=None, target=None):
                is_adapter = name.split('.')[0] in ('npu_bridge', 'npu_device')
                if is_adapter and sys._getframe(1).f_code.co_name != 'find_spec':
                    raise AssertionError('imported ' + name)

        modules, flags, run_dir = eval(sys.argv[1]), eval(sys.argv[2]), sys.argv[3]
        sys.meta_path.insert(0, Alarm())
        for name in modules:
            importlib.import_module(name)
        from trainers import evaluate, export, run
        assert run.main(flags) == 0
        flags = ['--ckpt_path=' + run_dir, '--device=cpu', '--data_path=' + sys.argv[4]]
        assert evaluate.main(flags) == 0
        assert export.main(['--ckpt_path=' + run_dir]) == 0
        assert not [name for name in sys.modules if name.startswith(('npu_bridge', 'npu_device'))]
        try:
            import npu_bridge
        except AssertionError:
            print('the alarm works')
    """
    result = python(
        '-c',
        textwrap.dedent(code),
        repr(sorted(MODULES)),
        repr(toys.flags_of(settings)),
        settings.run_dir,
        settings.data_path,
        ASCEND_DEVICE_ID='0',
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == 'the alarm works'


# --- the training graph ---------------------------------------------------------------------------


def _behind(fetches):
    """Operations that a run needs; what the iterator needs is work of the host."""
    seen, waiting = set(), [getattr(fetch, 'op', fetch) for fetch in fetches]
    while waiting:
        op = waiting.pop()
        if op not in seen and not op.type.startswith('Iterator'):
            seen.add(op)
            waiting.extend([tensor.op for tensor in op.inputs] + list(op.control_inputs))
    return seen


def _within(operations, graph):
    """NodeDefs in the branches of conditionals, which TensorFlow 2 stores in functions."""
    bodies = {
        function.signature.name: function.node_def
        for function in graph.as_graph_def(add_shapes=True).library.function
    }
    found, waiting = [], [op.node_def for op in operations]
    while waiting:
        inner = [
            node for attr in waiting.pop().attr.values() for node in bodies.get(attr.func.name, ())
        ]
        found += inner
        waiting += inner
    return found


WIDE = (tf.float64, tf.complex64, tf.complex128)


@pytest.mark.parametrize(
    'flags',
    [
        {},
        {'git_loss_form': 'pairwise', 'embedding_dim': 64},
        {'git_loss_form': 'pairwise'},
        {
            'git_loss_form': 'pairwise',
            'embedding_dim': 512,
            'batch_size': 128,
            'distance': 'cosine',
        },
        {'head': 'arcface', 'embedding_dim': 64},
        {'schedule': 'cosine', 'warmup_steps': 2},
        {'schedule': 'step', 'decay_steps': 3, 'optimizer': 'momentum'},
        {'loss_scale': 'dynamic'},
        {'loss_scale': '1024', 'iterations_per_loop': 4, 'optimizer': 'sgd'},
    ],
)
def test_the_graph_for_the_npu_is_static_and_has_nothing_forbidden(tmp_path, fakes, flags):
    """What the step runs, conditionals included, has no dynamic shape, no float64, no Python
    function, Unique or queue. On the CPU the pairwise form of many dimensions computes in float64,
    which shows that the test detects it.
    """
    settings = toys.options(tmp_path, **flags)
    dataset = data.load('mnist', settings.data_folder)
    found = {}
    for name in ('npu', 'cpu'):
        with tf.Graph().as_default() as graph:
            net = TrainingGraph(
                settings,
                dataset.spec,
                devices.Device(name, '', None, True),
                source=dataset.train,
            )
            operations = _behind(
                [net.train_op, net.steps_done, net.rate_of_step] + list(net.step_fetches.values())
            )
            inner = _within(operations, graph)
        # Shape arithmetic on constants is folded by TensorFlow before the card's compiler sees the
        # graph.
        operations = {
            op
            for op in operations
            if op.type != 'BroadcastGradientArgs'
            or {tensor.op.type for tensor in op.inputs} != {'Const'}
        }
        types = {op.type for op in operations} | {node.op for node in inner}
        tensors = [
            tensor
            for op in operations
            for tensor in op.outputs
            if tensor.dtype.base_dtype not in (tf.resource, tf.variant)
        ]
        is_open = [
            node.name
            for node in inner
            if not all(shape.is_fully_defined() for shape in static_shapes(node))
        ]
        is_wide = [
            node.name
            for node in inner
            if {attr.type for attr in node.attr.values()} & {one.as_datatype_enum for one in WIDE}
        ]
        found[name] = {
            'open': is_open
            + [tensor.name for tensor in tensors if not tensor.shape.is_fully_defined()],
            'float64': is_wide
            + [tensor.name for tensor in tensors if tensor.dtype.base_dtype in WIDE],
            'forbidden': sorted(
                kind for kind in types if re.match('Unique|PyFunc|EagerPyFunc|.*Queue', kind)
            ),
        }
        assert len(operations) > 150
        assert bool(inner) == (bool(settings.loss_scale) and not tf.__version__.startswith('1.'))
        assert ('IterationOp' in {op.name for op in operations}) == (
            settings.iterations_per_loop > 1
        )
    assert found['npu'] == {'open': [], 'float64': [], 'forbidden': []}
    assert bool(found['cpu']['float64']) == (
        flags.get('embedding_dim', 2) > 8 and flags.get('git_loss_form') == 'pairwise'
    )


@pytest.mark.parametrize(
    'device, optimizer', [('cpu', 'adam'), ('cpu', 'sgd'), ('npu', 'momentum'), ('npu', 'adagrad')]
)
def test_an_overflow_moves_neither_weights_nor_centers_nor_counts(
    tmp_path, fakes, device, optimizer
):
    """One bias is infinite in the second of three steps, and so are all embeddings and gradients:
    that step changes nothing. Each of the other two counts its 16 labels.
    """
    settings = toys.options(tmp_path, loss_scale='dynamic', optimizer=optimizer)
    dataset = data.load('mnist', settings.data_folder)
    with tf.Graph().as_default():
        net = TrainingGraph(
            settings,
            dataset.spec,
            devices.Device(device, '', None, True),
            source=dataset.train,
        )
        state = (
            [
                net.center_table.centers,
                net.center_table.updates,
                net.global_step,
            ]
            + net.model.weights
            + net.classifier.weights
        )
        bias = next(weight for weight in net.model.weights if weight.name == 'embeddings/bias:0')
        value = tf.placeholder(tf.float32, bias.shape)
        put = tf.assign(bias, value)
        with tf.Session(config=devices.choose(Options(device='cpu')).config) as session:

            def step():
                moved = session.run([net.train_op, net.step_fetches, net.steps_done])[1:]
                return session.run(state), moved

            session.run(tf.global_variables_initializer())
            session.run(net.iterator.initializer, {net.first_step: 0})
            before, (logs, done) = step()
            assert (
                (done, before[1].sum()) == (1, 16)
                and np.all(before[0] != 0)
                and logs['center_drift'] > 0
            )
            kept = session.run(bias)
            session.run(put, {value: np.full_like(kept, np.inf)})
            after, (logs, done) = step()
            assert done == 1 and not np.isfinite(logs['center_loss']) and logs['center_drift'] == 0
            session.run(put, {value: kept})
            for mine, its in zip(before, session.run(state)):
                np.testing.assert_array_equal(mine, its)
            last, (logs, done) = step()
    assert (
        (done, last[1].sum()) == (2, 32)
        and np.all(last[0] != before[0])
        and all(np.isfinite(values).all() for values in last)
    )


def test_without_loss_scaling_the_step_has_no_conditional(tmp_path):
    settings = toys.options(tmp_path)
    dataset = data.load('mnist', settings.data_folder)
    with tf.Graph().as_default():
        net = TrainingGraph(
            settings,
            dataset.spec,
            devices.Device('npu', '', None, True),
            source=dataset.train,
        )
        assert not {op.type for op in _behind([net.train_op])} & {'If', 'StatelessIf', 'Switch'}


# --- whole runs -----------------------------------------------------------------------------------

NPU_CFG = os.path.join(ROOT, 'flags', 'npu.cfg')


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """{name: (options, result)} of independent runs on the fake."""
    folder = tmp_path_factory.mktemp('npu')

    def options(name, **changes):
        return toys.options(
            folder, exp_save_dir=str(folder / name), **dict({'device': 'npu'}, **changes)
        )

    dynamic = {'loss_scale': 'dynamic', 'adam_epsilon': 1e-4}
    begun = options('begun', steps=4, device='cpu', evaluate=False)
    assert here(begun) == 0
    wanted = {
        'whole': (options('whole', log_every=4), {}),
        'auto': (
            options('auto', device='auto', steps=2, evaluate=False),
            {'ASCEND_DEVICE_ID': '2'},
        ),
        # The 1st and 2nd update (numbers 0 and 1) overflow, and the 8th.
        'scaled': (options('scaled', **dynamic), {'FAKE_NPU_OVERFLOW': '0,1,7'}),
        'continued': (
            options('begun', steps=8, evaluate=False, **dict(dynamic, adam_epsilon=1e-8)),
            {},
        ),
        # A fixed scale of 3e37 times a loss of some 90 is infinite in float32.
        'endless': (
            options('endless', evaluate=False, lambda_g=100.0, loss_scale='3' + 37 * '0'),
            {},
        ),
    }
    jobs = [job(settings, **variables) for settings, variables in wanted.values()]
    short = parse(
        [
            '--flagfile=' + NPU_CFG,
            '--steps=200',
            '--update_centers=100',
            '--batch_size=16',
            '--noevaluate',
            '--data_path=' + begun.data_path,
            '--exp_save_dir=' + str(folder / 'flagfile'),
        ]
    )
    results = on_the_fake(*jobs, job(short))
    return dict(
        zip(
            list(wanted) + ['flagfile'],
            zip([settings for settings, _ in wanted.values()] + [short], results),
        )
    )


@pytest.fixture
def whole(runs):
    """(options, result) of a run of 12 steps on the fake."""
    assert runs['whole'][1].returncode == 0, runs['whole'][1].stderr
    return runs['whole']


def test_a_run_on_the_npu_trains_as_on_the_cpu(whole, tmp_path):
    """The fake computes in float32 on the CPU, so the history equals that of a run there: the
    graphs compute the same.
    """
    settings, result = whole
    assert 'device npu (--device=npu; allow_mix_precision)' in result.stderr
    assert [row['config'] for row in records(settings, 'config')] == [
        {'use_off_line': True, 'precision_mode': 'allow_mix_precision'}
    ]
    other = toys.options(tmp_path, data_path=settings.data_path)
    assert here(other) == 0
    timed = ('seconds', 'images_per_sec')
    assert len(history_of(settings)) == 3
    for row, there in zip(history_of(settings), history_of(other)):
        assert {name: value for name, value in row.items() if name not in timed} == {
            name: pytest.approx(value, rel=1e-4)
            for name, value in there.items()
            if name not in timed
        }


def test_fetch_sets_stay_constant(whole):
    """All 12 steps use one set of fetches; the whole run uses 8, each of which an NPU compiles
    once: the initializers, the iterator, the step, the sweeps with and without losses, the counts
    of the centers, the check of the weights, and the saver.
    """
    runs = records(whole[0], 'run')
    steps = [tuple(row['run']) for row in runs if row['training']]
    assert len(steps) == 12 and len(set(steps)) == 1
    assert len({tuple(row['run']) for row in runs}) == 8


SUNK = {
    'device': 'npu',
    'iterations_per_loop': 4,
    'log_every': 4,
    'update_centers': 12,
    'steps': 24,
}


BAD_INTERVALS = [
    ({'steps': 22}, 'a divisor of --steps, 22. Received: 4'),
    ({'update_centers': 6}, 'a divisor of --update_centers, 6. Received: 4'),
    ({'save_every': '10'}, 'a divisor of --save_every, 10. Received: 4'),
    ({'log_every': 6}, 'a divisor of --log_every, 6. Received: 4'),
]


@pytest.fixture(scope='module')
def sunk_runs(tmp_path_factory):
    """{name: (options, result)} of runs with four steps per call, except `plain`."""
    folder = tmp_path_factory.mktemp('sunk')
    images = 16 if tf.__version__.startswith('1.') else 1
    code = """
from gitloss.backend import keras
def saver(options):
    return keras.callbacks.ModelCheckpoint(options.run_dir + '-at/{epoch}', save_freq=%d)
"""
    for name, every in (('good', 8), ('bad', 6)):
        (folder / (name + '_saver.py')).write_text(code % (every * images))

    def wanted(name, *flags, **changes):
        overflow = changes.pop('overflow', '')
        return (
            toys.options(folder, exp_save_dir=str(folder / name), **dict(SUNK, **changes)),
            flags,
            overflow,
        )

    cases = dict(
        {
            'sunk': wanted('sunk'),
            'plain': wanted('plain', iterations_per_loop=1),
            'bad_saver': wanted('bad_saver', f'--callbacks={folder / "bad_saver.py"}:saver'),
            'good_saver': wanted(
                'good_saver', '--noevaluate', f'--callbacks={folder / "good_saver.py"}:saver'
            ),
            'overflow': wanted('overflow', loss_scale='1024', evaluate=False, overflow='0'),
            'again': wanted('overflow', loss_scale='1024', evaluate=False),
        },
        **{str(changes): wanted('bad', **changes) for changes, _ in BAD_INTERVALS},
    )
    results = on_the_fake(
        *[
            job(settings, *flags, FAKE_NPU_OVERFLOW=overflow)
            for settings, flags, overflow in cases.values()
        ]
    )
    return {name: (case[0], result) for (name, case), result in zip(cases.items(), results)}


def test_sinking_makes_the_same_steps_in_fewer_calls(sunk_runs):
    """24 steps in calls of 4: six calls, and the weights of a run with one step per call, to the
    last bit of the fake.
    """
    for name in ('sunk', 'plain'):
        assert sunk_runs[name][1].returncode == 0, sunk_runs[name][1].stderr
    sunk, plain = sunk_runs['sunk'][0], sunk_runs['plain'][0]
    steps = [row['run'] for row in records(sunk, 'run') if row['training']]
    assert len(steps) == 6 and all('IterationOp' in names for names in steps)
    assert records(sunk, 'config')[0]['config'] == {
        'use_off_line': True,
        'precision_mode': 'allow_mix_precision',
        'iterations_per_loop': 4,
        'enable_data_pre_proc': True,
    }
    assert [row['step'] for row in history_of(sunk)] == [12, 24]
    for name, value in weights_of(plain, 24).items():
        np.testing.assert_array_equal(value, weights_of(sunk, 24)[name], err_msg=name)


@pytest.mark.parametrize('flags, said', BAD_INTERVALS)
def test_every_interval_must_be_divisible(sunk_runs, flags, said):
    result = sunk_runs[str(flags)][1]
    assert (result.returncode, result.stderr) == (
        2,
        f'trainers.run: --iterations_per_loop: expected {said}\n',
    )


def test_the_flag_file_keeps_the_rules_and_is_the_published_recipe():
    """Its 100 steps per call divide every interval. It differs from flags/full.cfg in the flags of
    the device and in two others.
    """
    settings = parse(['--flagfile=' + NPU_CFG])
    assert [
        steps % settings.iterations_per_loop
        for steps in (settings.steps, settings.update_centers, settings.log_every)
    ] == [0, 0, 0]
    assert npu_options.settings(settings) == {
        'use_off_line': True,
        'precision_mode': 'allow_mix_precision',
        'iterations_per_loop': 100,
        'enable_data_pre_proc': True,
    }
    full = parse(['--flagfile=' + os.path.join(ROOT, 'flags', 'full.cfg')]).as_dict()
    assert {name for name, value in settings.as_dict().items() if value != full[name]} == {
        'device',
        'precision',
        'iterations_per_loop',
        'adam_epsilon',
    }


def test_the_flag_file_trains(runs):
    """200 steps of toy data in two calls."""
    settings, result = runs['flagfile']
    assert result.returncode == 0, result.stderr
    assert len([row for row in records(settings, 'run') if row['training']]) == 2
    assert [row['step'] for row in history_of(settings)] == [100, 200]


def test_an_epsilon_that_float16_has_not_is_warned_of(runs):
    """The warning appears with the default of 1e-8 in mixed precision, not with 1e-4, set by flag
    or by flags/npu.cfg.
    """
    warned = {
        name: [line for line in result.stderr.splitlines() if 'warning' in line]
        for name, (_, result) in runs.items()
    }
    assert warned['whole'] == [
        'warning: --adam_epsilon=1e-08 is 0 in float16: an update may divide by 0; 1e-4 is advised'
    ]
    assert warned['scaled'] == warned['flagfile'] == []


def test_a_model_checkpoint_of_keras_counts_the_steps_of_a_sunk_loop(sunk_runs):
    """save_freq of 8 steps (8 * 16 images on TensorFlow 1.15) and calls of 4: saved after steps 8,
    16 and 24, in epochs of 12 steps, so into the folders of the epochs 1, 2 and again 2. Every 6
    steps is rejected: no call ends there.
    """
    result = sunk_runs['bad_saver'][1]
    assert (result.returncode, result.stderr) == (
        2,
        'trainers.run: --iterations_per_loop: expected a divisor of save_freq of '
        'keras.ModelCheckpoint, 6. Received: 4\n',
    )
    settings, result = sunk_runs['good_saver']
    assert result.returncode == 0, result.stderr
    steps = {
        name: checkpoints.read(settings.run_dir + '-at/' + name).step
        for name in os.listdir(settings.run_dir + '-at')
    }
    assert steps == {'1': 8, '2': 24}


def weights_of(settings, step):
    path = os.path.join(settings.run_dir, 'ckpt', f'step-{step:08}', 'model')
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name, _ in tf.train.list_variables(path)}


@pytest.fixture
def scaled(runs):
    """A run of 12 steps with dynamic loss scaling and three overflows."""
    assert runs['scaled'][1].returncode == 0, runs['scaled'][1].stderr
    return runs['scaled']


def test_overflow_steps_are_left_out_counted_and_logged(scaled):
    """12 steps need 15 runs. Two overflows halve the scale, 2^16 -> 2^15; the third, after a reset,
    is only counted: bad_steps 1. The 1st and the 2nd are logged, as the count reaches a power of
    two.
    """
    settings, result = scaled
    assert [row['overflow_steps'] for row in history_of(settings)] == [2, 3, 3]
    assert [line for line in result.stderr.splitlines() if 'overflow' in line] == [
        f'step 0: overflow under loss scaling, update left out; {count} so far' for count in (1, 2)
    ]
    assert len([row for row in records(settings, 'run') if row['training']]) == 15
    weights = weights_of(settings, 12)
    assert (
        weights['loss_scale'],
        weights['bad_steps'],
        weights['good_steps'],
        weights['global_step'],
    ) == (2.0**15, 1, 7, 12)
    assert weights['beta1_power'] == pytest.approx(0.9**13)


def test_a_checkpoint_of_the_npu_is_evaluated_exported_resumed_and_started_from_on_the_cpu(
    scaled, tmp_path, capsys
):
    """Variable names are those of any other run, whatever conditional Adam's scalars were created
    in; the variables of loss scaling are not read.
    """
    settings, _ = scaled
    assert (
        evaluate.main(
            [
                '--ckpt_path=' + settings.run_dir,
                '--data_path=' + settings.data_path,
                '--batch_size=16',
                '--device=cpu',
            ]
        )
        == 0
    )
    best = max(history_of(settings), key=lambda row: row['valid_acc'])
    assert json.loads(capsys.readouterr().out)['valid']['acc'] == best['valid_acc']
    assert export.main(['--ckpt_path=' + settings.run_dir, '--export_dir=' + str(tmp_path)]) == 0
    assert json.loads((tmp_path / 'gitloss.json').read_text())['checkpoint']['step'] == best['step']
    moved = str(tmp_path / 'moved')
    subprocess.run(['cp', '-r', settings.run_dir, moved], check=True)
    common = {'data_path': settings.data_path, 'adam_epsilon': 1e-4, 'device': 'cpu'}
    longer = toys.options(tmp_path, exp_save_dir=moved, steps=16, **common)
    assert here(longer) == 0
    assert 'continuing at step 12 of 16' in capsys.readouterr().err and [
        row['step'] for row in history_of(longer)
    ] == [4, 8, 12, 16]
    assert weights_of(longer, 16)['beta1_power'] == pytest.approx(
        0.9**17
    ) and 'loss_scale' not in weights_of(longer, 16)
    tuned = toys.options(tmp_path, init_checkpoint=settings.run_dir, steps=4, **common)
    assert here(tuned) == 0 and 'weights from ' in capsys.readouterr().err


def test_a_checkpoint_of_the_cpu_goes_on_on_the_npu_with_a_fresh_loss_scale(runs):
    settings, result = runs['continued']
    assert result.returncode == 0, result.stderr
    assert (
        'no bad_steps, good_steps, loss_scale in the checkpoint: loss scaling begins anew'
        in result.stderr
    )
    weights = weights_of(settings, 8)
    assert (weights['loss_scale'], weights['global_step']) == (2.0**16, 8)


def test_sinking_and_overflow_together_measure_what_they_pass(sunk_runs):
    """24 steps in calls of 4, update 0 overflows: calls end at 3, 7, 11, 15, 19, 23 and 27. The
    measurement of step 12 comes at 15, the end
    at 27, three steps late, and the run counts as finished: continued, it trains nothing."""
    settings, result = sunk_runs['overflow']
    assert result.returncode == 0, result.stderr
    assert [row['step'] for row in history_of(settings)] == [15, 27]
    assert [line.split()[1] for line in result.stderr.splitlines() if '  accuracy ' in line] == [
        f'{step}/24' for step in (7, 11, 15, 19, 23, 27)
    ]
    result = sunk_runs['again'][1]
    assert result.returncode == 0 and 'all steps are done' in result.stderr, result.stderr


class Ranks:
    """The same training with one rank, with two ranks as processes that communicate through the
    fake HCCL, and with two that sink four steps into a call. The third update (number 2) overflows,
    but only on the second rank. Sunk, the calls end at 3, 7, 11 and 15. Each rank dumps overflows
    to a folder of its own. Two processes make all these runs: that of one rank is the last of the
    first process.
    """

    def __init__(self, folder):
        self._table = rank_table(folder / 'table.json', 2)
        common = {
            'device': 'npu',
            'loss_scale': '1024',
            'optimizer': 'momentum',
            'learning_rate': 0.01,
            'adam_epsilon': 1e-4,
            'keep_checkpoints': 20,
        }
        self.one, self.two = (
            toys.options(
                folder,
                exp_save_dir=str(folder / name),
                steps=15,
                update_centers=5,
                save_every='1',
                **common,
            )
            for name in ('one', 'two')
        )
        self.sunk = toys.options(
            folder,
            exp_save_dir=str(folder / 'sunk'),
            steps=12,
            update_centers=12,
            iterations_per_loop=4,
            log_every=4,
            check_replicas=4,
            **common,
        )
        for settings in (self.one, self.two, self.sunk):
            os.makedirs(settings.exp_save_dir + '.hccl')
        jobs = [[self.job(self.two, rank, 2), self.job(self.sunk, rank, 2)] for rank in range(2)]
        jobs[0].append(self.job(self.one, 0, 1))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda jobs: on_the_fake(*jobs, kind='crew'), jobs)
        for result in second + first:
            assert result.returncode == 0, result.stderr[-2000:]

    def job(self, settings, rank, size):
        dump = settings.exp_save_dir + f'.dump{rank}'
        os.makedirs(dump)
        return (
            toys.flags_of(settings) + ['--npu_option=enable_dump_debug=true,dump_path=' + dump],
            {
                'RANK_SIZE': str(size),
                'RANK_ID': str(rank),
                'ASCEND_DEVICE_ID': str(rank),
                'JOB_ID': '1',
                'RANK_TABLE_FILE': self._table,
                'FAKE_HCCL': settings.exp_save_dir + '.hccl',
                'FAKE_HCCL_TIMEOUT': '40',
                'FAKE_NPU_OVERFLOW': '2' if rank == size - 1 else '',
                'FAKE_NPU_RECORD': settings.exp_save_dir + f'.record{rank}',
            },
        )

    @staticmethod
    def training_runs(settings, number):
        with open(settings.exp_save_dir + f'.record{number}') as file:
            return [row['run'] for row in map(json.loads, file) if row.get('training')]


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    return Ranks(tmp_path_factory.mktemp('ranks'))


def test_one_step_of_two_ranks_is_the_step_of_one(ranks):
    """Gradients (the momentum slots after one step), weights, centers and counts agree to 1e-6 of
    the largest value of each tensor.
    """
    mine, its = weights_of(ranks.one, 1), weights_of(ranks.two, 1)
    assert set(mine) == set(its) and sum(name.endswith('/Momentum') for name in mine) >= 17
    for name, value in mine.items():
        assert relative_error(its[name], value) <= 1e-6, name
    assert np.abs(mine['center_loss/centers']).max() > 1e-3


def test_ranks_stay_replicas_and_train_as_one_also_when_sunk(ranks):
    """An overflow on one rank skips the update of both. Sunk or not, the weights are equal to the
    last bit.
    """
    losses, variables = crew.witness(ranks.two.run_dir, 0)
    assert len(losses) == 15 and variables['global_step:0'] == 15
    np.testing.assert_allclose(losses, crew.witness(ranks.one.run_dir, 0)[0], rtol=1e-4)
    for settings, number in ((ranks.two, 1), (ranks.sunk, 0), (ranks.sunk, 1)):
        for name, value in crew.witness(settings.run_dir, number)[1].items():
            np.testing.assert_array_equal(
                value,
                variables[name],
                err_msg=f'{name} of rank {number}, {settings.run_dir}',
            )
    assert [row['step'] for row in history_of(ranks.two)] == [5, 10, 15] and [
        row['step'] for row in history_of(ranks.sunk)
    ] == [15]
    assert [
        history_of(settings)[-1]['overflow_steps']
        for settings in (ranks.one, ranks.two, ranks.sunk)
    ] == [1, 1, 1]


def test_ranks_run_the_same_steps_in_the_same_order(ranks):
    """16 updates, one skipped, and 4 calls of 4; a rank with a different set of fetches would wait
    for ever.
    """
    for settings, calls in ((ranks.two, 16), (ranks.sunk, 4)):
        first, second = (ranks.training_runs(settings, number) for number in range(2))
        assert len(first) == calls and first == second and len({tuple(run) for run in first}) == 1
    assert os.listdir(ranks.two.run_dir + '/ckpt') and not os.path.exists(
        ranks.two.run_dir + '/train_1.log'
    )


def test_a_scale_that_always_overflows_ends_the_training(runs):
    result = runs['endless'][1]
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        'trainers.run: step 0: expected one without overflow. Received: 201 in a row; is '
        '--loss_scale too large?'
    )


def test_loss_scaling_elsewhere_is_tensorflows(tmp_path):
    """On the CPU, without a card: lambda_g = 1e38 times the first scale, 2^15, overflows float32,
    so steps are skipped until it fits.
    """
    settings = toys.options(
        tmp_path, loss_scale='dynamic', lambda_g=1e38, optimizer='sgd', learning_rate=1e-37
    )
    assert here(settings) == 0
    rows = history_of(settings)
    assert rows[-1]['step'] == 12 and rows[-1]['overflow_steps'] > 0
    assert weights_of(settings, 12)['current_loss_scale'] < 2.0**15
