"""Ranks that communicate through the fake HCCL: collectives of threads, trainings of processes."""

import concurrent.futures
import json
import os
import textwrap

import numpy as np
import pytest

import crew
import toys
from fake_npu import history_of, on_the_fake, python, rank_table, weights_of
from helpers import relative_error

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
    assert set(mine) == set(its) and sum(name.endswith('/Momentum') for name in mine) == 9
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
