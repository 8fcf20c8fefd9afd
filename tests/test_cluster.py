"""TF_CONFIG: the cluster that it describes, and the group of workers that follows from it."""

import json
import socket

import pytest

import toys
from trainers import devices
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
