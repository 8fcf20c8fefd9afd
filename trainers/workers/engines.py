"""Several workers as one: N workers with batch B / N train as one worker with batch B.

Two engines: `Collectives` uses TensorFlow's own collectives, a ring over gRPC, or NCCL between
GPUs; `Hccl` uses Ascend's. `choose` gives the group of this process.
"""

from __future__ import annotations

import copy
import itertools
import os
import time
from typing import Any, Sequence

from gitloss.backend import Tensor, tf
from gitloss.errors import WorkerLost, check, one_line, reason
from trainers.devices import Device, npu
from trainers.options import FIELDS, Options
from trainers.workers import cluster
from trainers.workers.base import Workers
from trainers.workers.group import OneWorker

# Numbers in one reduction of gradients: large enough that latency costs nothing, small enough to be
# in memory twice.
BUCKET = 1 << 24


class Collectives(Workers):
    """TensorFlow's collective operations between processes that each run a `tf.train.Server`.

    TensorFlow orders the members of a group by the text of their task names, where /task:10 comes
    before /task:2. So rank r takes the task number that is the r-th in that order: gathered rows
    are in the order of rank.

    NCCL hangs if two workers start its operations in different orders. ConfigProto's
    collective_nccl and collective_deterministic_sequential_execution order reductions only, not
    gathers. So between GPUs a reduction waits for the gather built before it, else for the
    reduction before it. This costs no extra work: reduced losses need the gathered rows anyway.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        rank: int,
        config: Any,
        timeout: float,
        device: str = 'cpu',
        dtype: str = 'float32',
    ) -> None:
        tasks = sorted(range(len(addresses)), key=str)
        self._hint, self._task = 'nccl' if device == 'gpu' else 'ring', tasks[rank]
        self._dtype = dtype
        # Every worker builds the same collectives in the same order.
        self._instances, self.bucket = itertools.count(1), BUCKET
        self._before: list[Tensor] = []
        try:
            self._server = tf.train.Server(
                {'worker': [address for _, address in sorted(zip(tasks, addresses))]},
                job_name='worker',
                task_index=self._task,
                config=self._config(config),
            )
        except (tf.errors.OpError, RuntimeError) as error:
            raise ValueError(
                'TF_CONFIG: expected an address of this machine with a free port. Received: '
                f'{addresses[rank]} for worker {rank}: {one_line(reason(error), 160)}'
            )
        super().__init__(rank, len(addresses), timeout, addresses)

    def _config(self, config: Any) -> Any:
        own = copy.deepcopy(config)
        # Without the filter a session waits for all workers before it opens.
        own.device_filters.append(f'/job:worker/task:{self._task}')
        own.inter_op_parallelism_threads = 1  # a server has no thread of a caller
        own.experimental.collective_group_leader = '/job:worker/replica:0/task:0'
        if self._dtype == 'bfloat16':
            # RewriterConfig.OFF: a server refuses the convolutions in bfloat16 that TensorFlow
            # fuses with their biases.
            own.graph_options.rewrite_options.remapping = 2
        return own

    def session(self, graph: Any, config: Any) -> Any:
        start = time.monotonic()
        while not cluster.answers(self._addresses[0]):
            if time.monotonic() - start > self._limit:
                raise WorkerLost(self._lost(f'nothing for {self._limit:.0f} s'))
            time.sleep(0.1)
        return tf.Session(self._server.target, graph=graph, config=self._config(config))

    def _settings(self, on_host: bool) -> dict[str, Any]:
        """Group 1: the devices that train. Group 2: their host CPUs, for whole numbers, which NCCL
        does not carry.
        """
        return {
            'group_size': self.size,
            'group_key': 2 if on_host else 1,
            'instance_key': next(self._instances),
            'communication_hint': 'ring' if on_host else self._hint,
        }

    def gather(self, tensor: Tensor) -> Tensor:
        rows, *rest = tensor.shape.as_list()
        on_host = not tensor.dtype.is_floating
        # A reduction ends a pass: a sweep must not wait for what a training step gathers.
        before = [one for one in self._before if one.op.type == 'CollectiveGather' and not on_host]
        with tf.device('/cpu:0' if on_host else ''), tf.control_dependencies(before):
            gathered = tf.raw_ops.CollectiveGather(
                input=tensor, shape=[rows * self.size] + rest, **self._settings(on_host)
            )
        if self._hint == 'nccl' and not on_host:
            self._before = [gathered]
        return gathered

    def reduce(self, flat: Tensor) -> Tensor:
        with tf.control_dependencies(self._before):
            total = tf.raw_ops.CollectiveReduce(
                input=flat,
                merge_op='Add',
                final_op='Id',
                subdiv_offsets=[0],
                **self._settings(False),
            )
        self._before = [total] if self._hint == 'nccl' else []
        return total

    def broadcast(self, variables: Sequence[Tensor]) -> Tensor:
        with tf.device('/cpu:0'):
            if self.is_chief:
                moves = [
                    tf.raw_ops.CollectiveBcastSend(
                        input=variable, shape=variable.shape, **self._settings(True)
                    )
                    for variable in variables
                ]
            else:
                moves = [
                    tf.assign(
                        variable,
                        tf.raw_ops.CollectiveBcastRecv(
                            T=variable.dtype.base_dtype,
                            shape=variable.shape,
                            **self._settings(True),
                        ),
                    )
                    for variable in variables
                ]
            return tf.group(*moves)


class Hccl(Workers):
    """The cards of an Ascend training. Every rank must build the same graph and run the same
    fetches, or all hang.

    The adapter's npu_distributed_optimizer_wrapper is not used: it averages, in compute_gradients,
    gradients of separate losses. Here every rank computes the loss of the gathered batch, and
    `all_reduce` sums the parts of its gradient once. How long a rank waits for another is set in
    HCCL (hccl_timeout): a graph may take minutes to compile.
    """

    def __init__(self, is_sunk: bool = False) -> None:
        super().__init__(*npu.rank_environment(), timeout=float('inf'))
        self._hccl, self._is_sunk = npu.adapter('hccl.hccl_ops'), is_sunk

    def run(
        self,
        session: Any,
        fetches: Any,
        feeds: dict | None = None,
        requests: Sequence[int] = (0, 0),
        where: str = '',
    ) -> tuple[Any, Sequence[int]]:
        """A sunk loop takes no feeds: the requests have a run of their own, one per loop."""
        if not self._is_sunk or feeds:
            return super().run(session, fetches, feeds, requests, where)
        values = self._run(session, fetches, where=where)
        return values, super().run(session, [], {}, requests)[1]

    def gather(self, tensor: Tensor) -> Tensor:
        return self._hccl.allgather(tensor, self.size)

    def reduce(self, flat: Tensor) -> Tensor:
        return self._hccl.allreduce(flat, 'sum', fusion=0)

    def broadcast(self, variables: Sequence[Tensor]) -> Tensor:
        """The adapter's own broadcast skips variables that are not trainable, as the centers."""
        return tf.group(
            *[
                tf.assign(variable, self._hccl.broadcast([variable.read_value()], 0)[0])
                for variable in variables
            ]
        )


def choose(options: Options, device: Device) -> OneWorker:
    """The group of this process: by RANK_SIZE and RANK_ID on an NPU, else by TF_CONFIG.

    Raises:
      ValueError: the environment is wrong, or does not agree with the options.
    """
    timeout = options.collective_timeout
    if device.name == 'npu':
        size = npu.rank_environment()[1]
        check(
            timeout == FIELDS['collective_timeout'].default,
            '--collective_timeout',
            '--npu_option=hccl_timeout=SECONDS on npu, which has this clock alone',
            f'{timeout:g}',
        )
    else:
        ranks = os.environ.get('RANK_SIZE', '')
        check(
            ranks in ('', '0', '1'),  # each rank would train alone
            'RANK_SIZE',
            '1 on any device but npu',
            f'{ranks} on {device.name} ({device.reason})',
        )
        addresses, rank = cluster.read(os.environ.get('TF_CONFIG', ''))
        size = max(len(addresses), 1)
    check(
        options.batch_size % size == 0,
        '--batch_size',
        f'a multiple of the {size} workers, it is the batch of all',
        options.batch_size,
    )
    if size == 1:
        return OneWorker()
    if device.name == 'npu':
        return Hccl(options.iterations_per_loop > 1)
    return Collectives(addresses, rank, device.config, timeout, device.name, device.network_dtype)
