"""The order of collectives between GPUs, which only the edges of the graph can fix."""

import numpy as np
import pytest

import toys
from gitloss import data
from gitloss.backend import tf
from helpers import collectives_of
from trainers import devices, launch
from trainers.engine.graph import TrainingGraph
from trainers.workers import engines as distribution


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
    dependencies can order the collectives; buckets of 2^9 numbers make several reductions.
    Ordering adds no collective: a step has its gather and the reductions, a sweep the gather and,
    with losses, one reduction; requests, checksums and broadcasts use none of those between GPUs.
    """
    monkeypatch.setattr(distribution, 'BUCKET', 1 << 9)
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
        losses = list(net.eval_losses.values())
        fetched = (step, sweep, sweep + losses, requests, sums, broadcast)
        runs = [collectives_of(fetches) for fetches in fetched]
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
