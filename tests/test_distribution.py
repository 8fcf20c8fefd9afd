"""The group of workers: TF_CONFIG, collectives and common decisions.

Workers are threads here; test_workers.py has processes.
"""

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import toys
from crew import together
from gitloss import data
from gitloss.backend import tf
from gitloss.errors import WorkerLost, log
from trainers import devices, launch
from trainers.engine.graph import TrainingGraph
from trainers.engine.signals import Signals
from trainers.workers import cluster
from trainers.workers import engines as distribution
from trainers.workers.group import OneWorker


def config(cluster, kind='worker', index=0):
    return json.dumps({'cluster': cluster, 'task': {'type': kind, 'index': index}})


@pytest.mark.parametrize(
    'text, expected',
    [
        ('', ([], 0)),
        ('{}', ([], 0)),
        (config({'worker': ['a:1', 'b:2']}, index=1), (['a:1', 'b:2'], 1)),
        # As TFJob writes it.
        (
            config({'chief': ['c:3'], 'worker': ['a:1', 'b:2']}, index=1),
            (['c:3', 'a:1', 'b:2'], 2),
        ),
        (config({'chief': ['c:3'], 'worker': ['a:1']}, 'chief'), (['c:3', 'a:1'], 0)),
        (config({'worker': ['a:1'], 'master': ['m:9']}, 'master'), (['m:9', 'a:1'], 0)),
        (
            json.dumps(
                {
                    'cluster': {'worker': ['[::1]:5', 'b:2']},
                    'task': {'type': 'worker', 'index': 0},
                    'environment': 'cloud',
                }
            ),
            (['[::1]:5', 'b:2'], 0),
        ),
    ],
)
def test_the_cluster_of_a_tf_config(text, expected):
    assert cluster.read(text) == expected


@pytest.mark.parametrize(
    'text, said',
    [
        (
            '{worker',
            'expected JSON, as {"cluster": {"worker": ["host:port", ...]}, "task": {"type": '
            '"worker", "index": 0}}. Received: {worker',
        ),
        ('[1]', 'Received: [1]'),
        ('{"cluster": {"worker": ["a:1"]}}', 'expected objects "cluster" and "task", as {'),
        (config({}), 'expected cluster.worker, a list of "host:port"'),
        (
            config({'worker': 'a:1'}),
            'expected cluster.worker, a list of "host:port". Received: "a:1"',
        ),
        (
            config({'worker': ['a']}),
            'expected cluster.worker, a list of "host:port". Received: ["a"]',
        ),
        # 3 as an Arabic digit, and the ports that no server can have.
        *(
            (
                config({'worker': ['a:' + port]}),
                'expected cluster.worker, a list of "host:port". Received: '
                + json.dumps(['a:' + port]),
            )
            for port in ('0', '65536', '99999', '٣', '1\n')
        ),
        (
            config({'chief': ['a:1'], 'master': ['b:1']}, 'chief'),
            'expected one chief, under the name chief or master. Received: both',
        ),
        (
            config({'worker': ['a:1', 'a:1']}),
            'expected an address of its own for each worker. Received: a:1, a:1',
        ),
        (
            config({'worker': ['a:1', 'b:1']}, index=2),
            'one of worker 0, worker 1. Received: {"type": "worker", "index": 2}',
        ),
        (config({'worker': ['a:1', 'b:1']}, index=-1), 'Received: {"type": "worker", "index": -1}'),
        (
            config({'worker': ['a:1', 'b:1']}, index=True),
            'Received: {"type": "worker", "index": true}',
        ),
        (
            config({'worker': ['a:1']}, 'chief'),
            'one of worker 0. Received: {"type": "chief", "index": 0}',
        ),
        (
            config({'worker': ['a:1'], 'ps': ['p:1']}),
            'all train in step, without parameter servers or evaluators. Received: job ps',
        ),
        (
            config({'worker': ['a:1']}, 'evaluator'),
            'one of worker 0. Received: {"type": "evaluator", "index": 0}',
        ),
    ],
)
def test_a_wrong_tf_config_is_one_line(text, said):
    with pytest.raises(ValueError) as caught:
        cluster.read(text)
    assert (
        str(caught.value).startswith('TF_CONFIG: expected ')
        and said in str(caught.value)
        and '\n' not in str(caught.value)
    )


def test_a_batch_that_cannot_be_divided_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv('TF_CONFIG', config({'worker': ['a:1', 'b:1', 'c:1']}))
    settings = toys.options(tmp_path)
    with pytest.raises(
        ValueError,
        match='^--batch_size: expected a multiple of the 3 workers, it is the batch of all. '
        'Received: 16$',
    ):
        distribution.choose(settings, devices.choose(settings))


def test_without_a_cluster_or_with_one_worker_the_group_is_trivial(tmp_path, monkeypatch):
    settings = toys.options(tmp_path)
    for text in ('', config({'worker': ['a:1']})):
        monkeypatch.setenv('TF_CONFIG', text)
        assert type(distribution.choose(settings, devices.choose(settings))) is OneWorker


def test_one_worker_adds_nothing_to_the_graph():
    with tf.Graph().as_default() as graph:
        group, tensor = OneWorker(), tf.ones([2, 3])
        before = len(graph.get_operations())
        assert group.all_gather(tensor) is tensor and group.all_reduce([tensor])[0] is tensor
        group.build([])
        assert len(graph.get_operations()) == before


# --- collectives ----------------------------------------------------------------------------------


def collectives_of(fetches):
    """{name: names of all operations it needs} of the collectives in a run of `fetches`; those of
    integers under "host".
    """

    def needed(ops):
        found, open_ones = set(), list(ops)
        while open_ones:
            op = open_ones.pop()
            if op.name not in found:
                found.add(op.name)
                open_ones += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
        return found

    graph = tf.get_default_graph()
    ops = [
        graph.get_operation_by_name(name)
        for name in needed([getattr(one, 'op', one) for one in tf.nest.flatten(fetches)])
    ]
    return {
        op.name: needed([op])
        for op in ops
        if op.type.startswith('Collective') and op.get_attr('group_key') == 1
    }


class Recorder:
    """Replaces a session: records the fetches and answers with zeros of two workers."""

    def __init__(self):
        self.fetched = []

    def run(self, fetches, feeds=None):
        self.fetched.append(fetches)
        zeros = np.zeros((2, 2), np.int32)
        return [None, zeros] if isinstance(fetches, list) else zeros


@pytest.mark.parametrize('device', ['gpu', 'cpu'])
def test_between_gpus_no_two_collectives_are_free_to_change_places(tmp_path, monkeypatch, device):
    """With the softmax term alone no gradient depends on the gathered tensors, so only control
    dependencies can order the collectives; buckets of 2^16 numbers make several reductions.
    Ordering adds no collective: a step has its gather and the reductions, a sweep the gather and,
    with losses, one reduction; requests, checksums and broadcasts use none of those between GPUs.
    """
    monkeypatch.setattr(distribution, 'BUCKET', 1 << 16)
    settings = toys.options(tmp_path, lambda_c=0.0, lambda_g=0.0, device='cpu')
    group = distribution.Collectives(
        launch.free_addresses(2), 1, tf.ConfigProto(device_count={'GPU': 0}), 20.0, device
    )
    dataset = data.load('mnist', settings.data_folder)
    with tf.Graph().as_default():
        net = TrainingGraph(settings, dataset.spec, devices.choose(settings), group, dataset.train)
        group.build(tf.global_variables())
        sweep = list(net.eval_fetches.values())
        session = Recorder()
        group.run(session, [net.train_op, net.steps_done, net.step_fetches])
        group.check_replicas(session, 1)
        group.broadcast_variables(session)
        (step, requests), sums, broadcast = session.fetched
        runs = [
            collectives_of(fetches)
            for fetches in (
                step,
                sweep,
                sweep + list(net.eval_losses.values()),
                requests,
                sums,
                broadcast,
            )
        ]
    assert len(runs[0]) > 3 and [len(found) for found in runs[1:]] == [1, 2, 0, 0, 0]
    pairs = [
        (one, other, found) for found in runs for one in found for other in found if one < other
    ]
    free = [
        (one, other)
        for one, other, found in pairs
        if one not in found[other] and other not in found[one]
    ]
    assert free == [] if device == 'gpu' else len(free) == len(pairs)


def test_a_chief_that_never_comes_is_waited_for_ten_times_as_long():
    """Worker 1 of two; 10 * 0.1 s."""
    group = distribution.Collectives(
        launch.free_addresses(2), 1, tf.ConfigProto(device_count={'GPU': 0}), 0.1
    )
    start = time.monotonic()
    with tf.Graph().as_default() as graph, pytest.raises(
        WorkerLost,
        match='^start: expected an answer from all 2 workers. Received: '
        'nothing for 1 s; worker 0 at 127.0.0.1:[0-9]+ is gone. Start all',
    ):
        group.session(graph, tf.ConfigProto())
    assert 1 <= time.monotonic() - start < 10


def test_what_is_gathered_lies_in_the_order_of_rank():
    """Eleven workers: TensorFlow orders task names as text, where 10 comes before 2."""

    def work(group, session):
        gathered = group.all_gather(tf.constant([[group.rank]], tf.int32))
        with session() as run:
            return run.run(gathered).ravel().tolist()

    assert together(11, work) == [list(range(11))] * 11


def test_the_gradient_of_a_gather_is_the_own_part_of_the_whole():
    """L = sum_ij w_ij (x_i . x_j) over all six rows of three workers: dL/dx_i = sum_j (w_ij + w_ji)
    x_j, of which each worker computes its two rows."""
    random = np.random.RandomState(0)
    x, w = random.randn(6, 4).astype(np.float32), random.randn(6, 6).astype(np.float32)

    def work(group, session):
        mine = tf.constant(x[2 * group.rank : 2 * group.rank + 2])
        everything = group.all_gather(mine)
        (gradient,) = tf.gradients(
            tf.reduce_sum(w * tf.matmul(everything, everything, transpose_b=True)), [mine]
        )
        with session() as run:
            return run.run([everything, gradient])

    for rank, (everything, gradient) in enumerate(together(3, work)):
        assert everything.tobytes() == x.tobytes()
        np.testing.assert_allclose(gradient, ((w + w.T).dot(x))[2 * rank : 2 * rank + 2], rtol=1e-5)


@pytest.mark.parametrize('bucket, reductions', [(1 << 20, 1), (8, 3)])
def test_sums_come_in_few_reductions(monkeypatch, bucket, reductions):
    """Tensors of 6, 1, 20 and 2 floats in buckets of 8 floats: 6 + 1, then 20, which has a bucket
    of its own, then 2.
    """
    monkeypatch.setattr(distribution, 'BUCKET', bucket)

    def work(group, session):
        values = [
            tf.fill(shape, float(place + group.rank))
            for place, shape in enumerate(([2, 3], [], [20], [1, 2]))
        ]
        sums = group.all_reduce(values)
        count = sum(op.type == 'CollectiveReduce' for op in tf.get_default_graph().get_operations())
        with session() as run:
            return count, run.run(sums)

    for count, sums in together(2, work):
        assert count == reductions
        assert [(value.shape, np.unique(value).tolist()) for value in sums] == [
            ((2, 3), [1]),
            ((), [3]),
            ((20,), [5]),
            ((1, 2), [7]),
        ]


def variables_of(rank):
    return [
        tf.get_variable(
            'a', initializer=tf.constant([-0.0, np.nan, 1.0 + rank]), use_resource=True
        ),
        tf.get_variable('b', initializer=tf.constant(1 << (40 + rank), tf.int64)),
        tf.get_variable('c', initializer=tf.constant([rank, 7], tf.int32), use_resource=True),
    ]


def test_what_the_chief_has_and_decides_reaches_all():
    """Variables are equal to the bit, the sign of zero and NaN included; also a decision longer
    than one chunk of 64 KiB, and requests.
    """
    decision = {'text': 'x' * 100000 + '\u00e9', 'pi': 0.1 + 0.2, 'nothing': None}

    def work(group, session):
        variables = variables_of(group.rank)
        initial, one = tf.global_variables_initializer(), tf.constant(1)
        group.build(variables)
        with session() as run:
            run.run(initial)
            decided = [
                group.decide(run, lambda value=value: value if group.is_chief else 'own')
                for value in (decision, None)
            ]
            _, requests = group.run(run, one, requests=[15 * group.rank, 0])
            group.broadcast_variables(run)
            group.check_replicas(run, 1)
            group.finish(run)
            return decided, requests, [value.tobytes() for value in run.run(variables)]

    for decided, requests, values in together(2, work):
        assert decided == [decision, None] and requests == [15, 0]
        assert values == [
            np.array([-0.0, np.nan, 1], np.float32).tobytes(),
            np.int64(1 << 40).tobytes(),
            np.array([0, 7], np.int32).tobytes(),
        ]


def test_a_mistake_that_the_chief_finds_is_told_by_all():
    def work(group, session):
        group.build(variables_of(0))
        with session() as run:

            def decision():
                raise ValueError('--steps: expected more. Received: less')

            group.decide(run, decision)

    assert [(type(error), str(error)) for error in together(2, work)] == [
        (ValueError, '--steps: expected more. Received: less')
    ] * 2


@pytest.mark.parametrize(
    'change, name', [({'a': [0, np.nan, 1]}, 'a'), ({'b': 1 << 41}, 'b'), ({'c': [7, 0]}, 'c')]
)
def test_replicas_that_differ_stop_the_run(change, name):
    """A difference in the sign of a zero, in the upper half of an integer, in the order of two
    values.
    """

    def work(group, session):
        variables = variables_of(0)
        changes = [
            tf.assign(variable, change[variable.name[0]])
            for variable in variables
            if variable.name[0] in change
        ]
        initial = tf.global_variables_initializer()
        group.build(variables)
        with session() as run:
            run.run(initial)
            if group.rank == 1:
                run.run(changes)
            group.check_replicas(run, 300)

    for error in together(2, work):
        assert isinstance(error, WorkerLost)
        assert str(error) == (
            f'step 300: expected the same variables on all 2 workers. Received: another {name} '
            'on worker 1 than on worker 0'
        )


# --- data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [1, 2, 3])
def test_the_parts_of_the_workers_make_the_global_batch(size):
    source = data.ArraySource(
        np.arange(70, dtype=np.uint8).reshape(70, 1, 1, 1), np.arange(70, dtype=np.int32)
    )
    whole = data.BatchStream(source, 12, seed=3)
    for step in (0, 5, 11):  # the last batch crosses into the third epoch
        parts = [data.BatchStream(source, 12, 3, rank, size).batch(step) for rank in range(size)]
        for part, both in zip(zip(*parts), whole.batch(step)):
            assert np.concatenate(part).tolist() == both.tolist()
    walks = zip(*[data.padded_batches(source, 12, rank, size) for rank in range(size)])
    for parts, (images, labels, count) in zip(walks, data.padded_batches(source, 12)):
        assert np.concatenate([part for part, _, _ in parts]).tolist() == images.tolist()
        assert all(their.tolist() == labels.tolist() and n == count for _, their, n in parts)


# --- commands -------------------------------------------------------------------------------------


def launched(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'trainers.launch'] + list(arguments),
        cwd=launch.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def test_the_launcher_ends_with_the_status_of_the_first_that_failed(tmp_path):
    """Both workers find the mistake in the flags; worker 1 reports it in its log."""
    ended = launched('--workers=2', f'--log_dir={tmp_path}', '--', '--steps=many')
    said = "trainers.run: --steps: expected a whole number. Received: 'many'\n"
    assert ended.returncode == 2
    assert said in ended.stdout.decode() and (tmp_path / 'worker-1.log').read_text() == said


def test_one_failure_ends_the_others(tmp_path):
    """Worker 1 fails while worker 0 would sleep for a minute; the line names worker 1 and its
    log.
    """
    program = (
        'import os, sys, time; time.sleep(60 if \'"index": 0\' in os.environ["TF_CONFIG"] else '
        '0.3); sys.exit(7)'
    )
    started = []
    launch.start(started, [], 2, str(tmp_path), program=('-c', program))
    before = time.monotonic()
    assert launch.wait(started, grace=0.5) == 7
    assert time.monotonic() - before < 20 and started[0][0].returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    'visible, devices, expected',
    [
        (None, 0, []),
        (None, 2, ['0', '1']),
        (None, 1, []),  # as many as in /dev
        ('2,3,5', 0, ['2', '3']),
        ('GPU-8f, GPU-1c', 4, ['GPU-8f', 'GPU-1c']),
        ('0', 4, []),
        ('', 4, []),
        ('1,-1,0', 4, []),
        ('-1', 4, []),
    ],
)
def test_each_worker_gets_a_card_of_its_own_where_there_are_enough(
    tmp_path, monkeypatch, visible, devices, expected
):
    monkeypatch.setattr(
        launch.glob, 'glob', lambda pattern: [f'/dev/nvidia{number}' for number in range(devices)]
    )
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    assert launch.cards(2) == expected
    if len(expected) == 2 and visible:
        started = []
        launch.start(
            started,
            [],
            2,
            str(tmp_path),
            program=('-c', 'import os; print(os.environ["CUDA_VISIBLE_DEVICES"])'),
        )
        assert (
            launch.wait(started) == 0
            and (tmp_path / 'worker-1.log').read_text() == expected[1] + '\n'
        )
        launch.end(started)


# A launcher whose workers write to a file that they run, and later which signal ended them.
LAUNCHER = """
import sys
from trainers import launch
start = launch.start
launch.start = lambda *arguments: start(*arguments, program=('-c', sys.argv[1]))
sys.exit(launch.main(sys.argv[2:]))
"""
FOLLOWER = """
import json, os, signal, sys, time
from trainers import run
rank = json.loads(os.environ['TF_CONFIG'])['task']['index']
path = os.path.join(sys.argv[1].split('=')[1], f'is-{rank}')
def note(signum=0, frame=None):
    with open(path + '.new', 'w') as file:
        file.write(str(signum))
    os.rename(path + '.new', path)
    if signum:
        os._exit(3)
signal.signal(signal.SIGTERM, note)
sys.exit(run.main(sys.argv[1:], work=lambda options: note() or time.sleep(60)))
"""


@pytest.mark.parametrize('signum, status', [(signal.SIGHUP, 3), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_worker_outlives_the_launcher(tmp_path, signum, status):
    """The terminal of the launcher is closed, or the launcher is killed: each worker gets SIGTERM,
    upon which a training saves a checkpoint.
    """

    def noted():
        return [
            path.read_text() for path in (tmp_path / 'is-0', tmp_path / 'is-1') if path.exists()
        ]

    def until(expected):
        limit = time.monotonic() + 60
        while noted() != expected and time.monotonic() < limit:
            time.sleep(0.02)
        assert noted() == expected

    process = subprocess.Popen(
        [
            sys.executable,
            '-c',
            LAUNCHER,
            FOLLOWER,
            f'--log_dir={tmp_path}',
            '--',
            f'--exp_save_dir={tmp_path}',
        ],
        cwd=launch.ROOT,
        stdin=subprocess.DEVNULL,
        # Under nohup SIGHUP would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    try:
        until(['0', '0'])
        process.send_signal(signum)
        until(['15', '15'])
        assert process.wait(60) == status
    finally:
        process.kill()
        process.wait()


def test_a_signal_is_obeyed_though_the_terminal_is_gone():
    """Writes to the closed terminal fail, which must not cost the checkpoint."""

    class Gone(logging.Handler):
        def emit(self, record):
            raise OSError(errno.EIO, 'Input/output error')

    log.handlers = log.handlers + [Gone()]  # conftest restores the logger
    signals = Signals()
    with signals:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    assert signals.received == signal.SIGTERM


@pytest.mark.parametrize('arguments', [['--workers=0'], ['--workers=two'], ['--wrokers=2']])
def test_a_mistake_in_the_launchers_flags_is_status_2(arguments):
    assert launched(*arguments).returncode == 2


def test_a_port_that_is_taken_is_one_line(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(('0.0.0.0', 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        monkeypatch.setenv('TF_CONFIG', config({'worker': [f'127.0.0.1:{port}', '127.0.0.1:1']}))
        settings = toys.options(tmp_path)
        with pytest.raises(ValueError) as caught:
            distribution.choose(settings, devices.choose(settings))
    assert str(caught.value).startswith(
        'TF_CONFIG: expected an address of this machine with a free port. Received: '
        f'127.0.0.1:{port} for '
        'worker 0: '
    ) and '\n' not in str(caught.value)


def test_the_tfjob_gives_the_claim_to_the_chief_alone():
    """A volume claim shared by pods would have to be ReadWriteMany; the other workers write their
    logs to their own disks.
    """
    with open(os.path.join(launch.ROOT, 'docs', 'distributed.md'), encoding='utf-8') as file:
        manifest = file.read().split('```yaml')[1].split('```')[0]
    chief, worker = manifest.split('    Worker:')
    assert 'persistentVolumeClaim' in chief and 'emptyDir' not in chief
    assert (
        'emptyDir' in worker
        and 'persistentVolumeClaim' not in worker
        and 'template: *' not in worker
    )
