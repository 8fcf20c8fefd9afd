"""Several workers as one: N of them with batch B / N train as one with batch B.

The engines behind the groups of `trainers.workers.group`: `Collectives` is TensorFlow's own, a ring
over gRPC, NCCL between GPUs; `Hccl` is Ascend's. `choose` says which one this process belongs to.
"""

from __future__ import annotations

import os
import time

from gitloss.backend import tf
from gitloss.errors import WorkerLost, one_line, reason
from trainers.devices import npu
from trainers.options import FIELDS
from trainers.workers import cluster
from trainers.workers.group import OneWorker, Workers, answers

BUCKET = (
    1 << 24
    # gradients go in reductions of up to so many numbers: few enough to pay no latency, small enough
    # to hold twice
)


class Collectives(Workers):
    """TensorFlow's collective operations between processes that each run a `tf.train.Server`.

    The engine orders the members of a group by the text of their task names, and /task:10 comes
    before /task:2. So rank r takes the task number that is the r-th in that order, and what is
    gathered lies in the order of rank.

    NCCL hangs when two workers begin its operations in another order. ConfigProto's collective_nccl
    and collective_deterministic_sequential_execution order reductions only, no gathers. So between
    GPUs what is reduced waits for the gather built before it, then for the reduction before it. No
    run gets more to do by that: losses that are reduced need what was gathered.
    """

    def __init__(self, addresses, rank, config, timeout, device='cpu'):
        tasks = sorted(range(len(addresses)), key=str)
        by_task = [address for _, address in sorted(zip(tasks, addresses))]
        self._hint, self._instance, self._task, self._before = (
            'nccl' if device == 'gpu' else 'ring',
            0,
            tasks[rank],
            [],
        )
        try:
            self._server = tf.train.Server(
                {'worker': by_task},
                job_name='worker',
                task_index=self._task,
                config=self._config(config),
            )
        except (tf.errors.OpError, RuntimeError) as error:
            raise ValueError(
                'TF_CONFIG: expected an address of this machine with a free port. Received: %s for worker %d: %s'
                % (addresses[rank], rank, one_line(reason(error), 160))
            )
        super().__init__(rank, len(addresses), timeout, addresses)

    def _config(self, config):
        own = tf.ConfigProto()
        own.CopyFrom(config)
        own.device_filters.append(
            '/job:worker/task:%d' % self._task
        )  # else a session waits for all workers before it is made
        own.experimental.collective_group_leader = '/job:worker/replica:0/task:0'
        return own

    def session(self, graph, config):
        start = time.monotonic()
        while not answers(self._addresses[0]):
            if time.monotonic() - start > self._limit:
                raise WorkerLost(self._lost(f'nothing for {self._limit:.0f} s'))
            time.sleep(0.1)
        return tf.Session(self._server.target, graph=graph, config=self._config(config))

    def _collective(self, host, **extra):
        """Group 1: the devices that train. Group 2: the processors beside them, for whole numbers,
        which NCCL has no way for.
        """
        self._instance += 1  # every worker builds the same collectives in the same order
        return dict(
            group_size=self.size,
            group_key=2 if host else 1,
            instance_key=self._instance,
            communication_hint='ring' if host else self._hint,
            **extra,
        )

    def all_gather(self, tensor):
        rows, *rest = tensor.shape.as_list()
        mine, whole = slice(self.rank * rows, (self.rank + 1) * rows), [rows * self.size] + rest
        if not tensor.dtype.is_floating:
            with tf.device('/cpu:0'):
                return tf.raw_ops.CollectiveGather(
                    input=tensor, shape=whole, **self._collective(True)
                )
        gathered = tf.custom_gradient(
            lambda local: (
                tf.raw_ops.CollectiveGather(input=local, shape=whole, **self._collective(False)),
                lambda upstream: upstream[mine],
            )
        )(tensor)
        self._before = [gathered] if self._hint == 'nccl' else []
        return gathered

    def all_reduce(self, tensors):
        buckets, sums = [[]], []
        for tensor in tensors:
            if (
                buckets[-1]
                and sum(one.shape.num_elements() for one in buckets[-1] + [tensor]) > BUCKET
            ):
                buckets.append([])
            buckets[-1].append(tensor)
        for bucket in buckets:
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in bucket], 0)
            with tf.control_dependencies(self._before):
                total = tf.raw_ops.CollectiveReduce(
                    input=flat,
                    merge_op='Add',
                    final_op='Id',
                    subdiv_offsets=[0],
                    **self._collective(False),
                )
            self._before = [total] if self._hint == 'nccl' else []
            parts = tf.split(total, [tensor.shape.num_elements() for tensor in bucket])
            sums += [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, bucket)]
        return sums

    def broadcast(self, variables):
        def move(variable, **settings):
            if self.is_chief:
                return tf.raw_ops.CollectiveBcastSend(input=variable, **settings)
            return tf.assign(
                variable, tf.raw_ops.CollectiveBcastRecv(T=variable.dtype.base_dtype, **settings)
            )

        with tf.device('/cpu:0'):
            return tf.group(
                *[
                    move(variable, **self._collective(True, shape=variable.shape))
                    for variable in variables
                ]
            )


class Hccl(Workers):
    """The cards of an Ascend training. Every rank builds the same graph and runs the same fetches,
    or all hang.

    The adapter's npu_distributed_optimizer_wrapper is not used: it averages, in compute_gradients,
    gradients of separate losses. Here every rank computes the loss of the gathered batch, and the
    parts of its gradient are summed once, by `all_reduce`. How long a rank waits for another is
    HCCL's own business (hccl_timeout): a graph may take minutes to compile.
    """

    def __init__(self, is_sunk=False):
        super().__init__(*npu.rank_environment(), timeout=float('inf'))
        self._hccl, self._is_sunk = npu.adapter('hccl.hccl_ops'), is_sunk

    def run(self, session, fetches, feeds=None, wish=(0, 0), what=''):
        """A sunk loop takes no feeds: the wishes then have a run of their own, one for as many
        steps as are sunk.
        """
        if not self._is_sunk or feeds:
            return super().run(session, fetches, feeds, wish, what)
        self._what = what or self._what
        values = self._run(session, fetches)
        return values, super().run(session, [], {}, wish)[1]

    def all_gather(self, tensor):
        rows = tensor.shape.as_list()[0]

        @tf.custom_gradient
        def gathered(own):
            return self._hccl.allgather(own, self.size), lambda upstream: upstream[
                self.rank * rows : (self.rank + 1) * rows
            ]

        return (
            gathered(tensor)
            if tensor.dtype.is_floating
            else self._hccl.allgather(tensor, self.size)
        )

    def all_reduce(self, tensors):
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
        parts = tf.split(
            self._hccl.allreduce(flat, 'sum', fusion=0),
            [tensor.shape.num_elements() for tensor in tensors],
        )
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors)]

    def broadcast(self, variables):
        """The adapter's own broadcast leaves out what is not trainable, the centers for one."""
        return tf.group(
            *[
                tf.assign(variable, self._hccl.broadcast([variable.read_value()], 0)[0])
                for variable in variables
            ]
        )


def choose(options, device):
    """The group this process belongs to: by RANK_SIZE and RANK_ID on an NPU, else by TF_CONFIG.

    Raises:
      ValueError: the environment is wrong, or does not go with the options.
    """
    if device.name == 'npu':
        addresses, workers = (), npu.rank_environment()[1]
        if options.collective_timeout != FIELDS['collective_timeout'].default:
            raise ValueError(
                '--collective_timeout: expected --npu_option=hccl_timeout=SECONDS on npu, which has this clock alone. '
                f'Received: {options.collective_timeout:g}'
            )
    else:
        if os.environ.get('RANK_SIZE', '') not in (
            '',
            '0',
            '1',
        ):  # each rank would train by itself, as if it were all
            raise ValueError(
                'RANK_SIZE: expected 1 on any device but npu. Received: {} on {} ({})'.format(
                    os.environ['RANK_SIZE'], device.name, device.reason
                )
            )
        addresses, rank = cluster.read(os.environ.get('TF_CONFIG', ''))
        workers = max(len(addresses), 1)
    if options.batch_size % workers:
        raise ValueError(
            '--batch_size: expected a multiple of the %d workers, it is the batch of all. Received: %d'
            % (workers, options.batch_size)
        )
    if workers == 1:
        return OneWorker()
    if device.name == 'npu':
        return Hccl(options.iterations_per_loop > 1)
    return Collectives(addresses, rank, device.config, options.collective_timeout, device.name)
