"""Several workers as one: N of them with batch B / N train as one with batch B.

What all must do alike goes through a group: values of all are gathered, gradients are summed, the chief's variables and decisions reach
everybody. `OneWorker` does nothing at all, `Collectives` is TensorFlow's own engine: a ring over gRPC, NCCL between
GPUs; `Hccl` is Ascend's.
"""
from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time

import numpy as np

from gitloss.backend import tf
from trainers import cluster, npu
from trainers.checkpoints import reason
from trainers.options import one_line

log = logging.getLogger('gitloss')
_BUCKET = 1 << 24   # gradients go in reductions of up to so many numbers: few enough to pay no latency, small enough to hold twice
_LETTER = 1 << 14   # a decision of the chief travels in letters of 64 KiB, of one static shape
_START_FACTOR = 10  # pods and imports take their time: at the start the limit is so many times --collective_timeout
_PATIENCE = 2.0     # seconds without an answer after which a worker looks whether the others are still there
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError,
         tf.errors.InternalError)


class WorkerLost(RuntimeError):
    """Another worker has ended, does not answer or has other variables, in one line."""


class OneWorker:
    """The trivial group. The graph gets no operation of it, a step no cost."""

    rank, size, is_chief = 0, 1, True

    def all_gather(self, tensor):
        """[rows, ...] of this worker -> [size * rows, ...] of all in the order of rank. Its gradient is this worker's rows of the incoming
        one: right where all compute the whole loss of what was gathered, and the gradients of the weights are then summed."""
        return tensor

    def all_reduce(self, tensors):
        """A list of tensors of one float type -> the list of their sums over the workers."""
        return tensors

    def build(self, variables):
        """Creates what the methods below need. `variables`: what makes a worker the replica of another."""

    def session(self, graph, config):
        return tf.Session(graph=graph, config=config)

    def run(self, session, fetches, feeds=None, wish=(), what=''):
        """A `session.run` that all workers make together. `wish`: numbers from 0 on. Returns (values, the largest wishes of all)."""
        return session.run(fetches, feeds), wish

    def decide(self, session, decision):
        """What `decision()`, JSON values, returns on the chief. Its ValueError is raised on every worker."""
        return decision()

    def spread(self, session):
        """Gives every worker the chief's values of all variables."""

    def check_replicas(self, session, step):
        """Raises WorkerLost where the variables of two workers differ."""

    def finish(self, session):
        """Waits for the others at the end, so that none leaves while another still reads from it."""

    def close(self, session):
        if session is not None:
            session.close()


class Workers(OneWorker):
    """What is the same whatever carries the values. An engine adds `all_gather`, `all_reduce`, `broadcast` and perhaps `session`.

    Args:
      rank, size: which one of how many.
      timeout: seconds without an answer after which the process ends, because a collective cannot be cancelled on all TensorFlows.
      addresses: "host:port" of each worker, to see which one is gone.
    """

    def __init__(self, rank, size, timeout, addresses=()):
        self.rank, self.size, self.is_chief = rank, size, rank == 0
        self._addresses, self._timeout, self._limit = addresses, timeout, timeout * _START_FACTOR
        self._started, self._what = None, 'start'
        threading.Thread(target=self._watch, name='watchdog', daemon=True).start()

    def broadcast(self, variables):
        """An op that gives `variables` the chief's values on every worker."""
        raise NotImplementedError

    def build(self, variables):
        self._names = [variable.name.split(':')[0] for variable in variables]
        self._wish = tf.placeholder(tf.int32, [1, 2], name='wish')
        self._wishes = self.all_gather(self._wish)
        with tf.device('/cpu:0'):
            self._sums = self.all_gather(tf.stack([_checksum(variable) for variable in variables])[None, :])
            self._letter = tf.placeholder(tf.int32, [_LETTER], name='letter')
            mail = tf.get_variable('mail', [_LETTER], tf.int32, tf.zeros_initializer(), trainable=False, use_resource=True,
                                   collections=[tf.GraphKeys.LOCAL_VARIABLES])
            self._write, self._read = tf.assign(mail, self._letter), mail.read_value()
        self._post, self._spread = self.broadcast([mail]), self.broadcast(variables)

    def run(self, session, fetches, feeds=None, wish=(0, 0), what=''):
        self._what = what or self._what
        values, wishes = self._run(session, [fetches, self._wishes], {**(feeds or {}), self._wish: [wish]})
        return values, np.max(wishes, axis=0).tolist()

    def _run(self, session, fetches, feeds=None):
        self._started = time.monotonic()
        try:
            return session.run(fetches, feeds)
        except _LOST as error:
            raise WorkerLost(self._lost(one_line(reason(error), 160)))
        finally:
            self._started = None

    def decide(self, session, decision):
        made = problem = None
        if self.is_chief:
            try:
                made = decision()
            except ValueError as error:
                problem = error
        shared, mistake = self._share(session, [made, problem and str(problem)])
        self._limit = self._timeout  # all are here
        if mistake:
            raise problem or ValueError(mistake)
        return made if self.is_chief else shared

    def _share(self, session, value):
        """The chief's JSON value. Its length comes first."""
        text = json.dumps(value).encode('utf-8') if self.is_chief else b''
        words = np.frombuffer(len(text).to_bytes(4, 'little') + text + bytes(-len(text) % 4), '<i4')
        received = np.zeros(0, np.int32)
        while not len(received) or received.nbytes < 4 + received[0]:
            letter = words[len(received):len(received) + _LETTER]
            session.run(self._write, {self._letter: np.pad(letter, (0, _LETTER - len(letter)), 'constant')})
            self._run(session, self._post)
            received = np.concatenate([received, session.run(self._read)])
        return json.loads(received.astype('<i4').tobytes()[4:4 + received[0]].decode('utf-8'))

    def spread(self, session):
        self._run(session, self._spread)

    def check_replicas(self, session, step):
        sums = self._run(session, self._sums)
        for rank, place in np.argwhere(sums != sums[0])[:1]:
            raise WorkerLost('step %d: expected the same variables on all %d workers. Received: another %s on worker %d than on worker 0'
                             % (step, self.size, self._names[place], rank))

    def finish(self, session):
        self._attempt(lambda: session.run(self._post))

    def close(self, session):
        self._attempt(lambda: super(Workers, self).close(session))

    def _attempt(self, work):
        """What concerns a peer that may have left: the training is over, and who has gone is missed by nobody."""
        def attempt():
            try:
                work()
            except tf.errors.OpError:
                pass
        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(min(self._timeout, 10.0))

    def _lost(self, said):
        gone = ['worker %d at %s is gone' % (rank, address) for rank, address in enumerate(self._addresses)
                if rank != self.rank and not _answers(address)][:8]
        return '%s: expected an answer from all %d workers. Received: %s; %s. Start all of them again to go on from the last checkpoint' % (
            self._what, self.size, said, ', '.join(gone) or 'no worker is gone, one hangs or has ended just now')

    def _watch(self):
        """Ends the process, from beside a main thread that waits for ever; whatever was saved is whole.

        Not every TensorFlow tells that a peer has died. So who has waited for a while knocks: all at the chief, the chief at all.
        """
        waited, peers = 0.0, self._addresses if self.is_chief else self._addresses[:1]
        while waited < self._limit:
            time.sleep(min(0.25, self._timeout / 8.0))
            started = self._started
            waited = time.monotonic() - started if started else 0.0
            if waited > _PATIENCE and self._limit == self._timeout and False in map(_answers, peers):
                break
        log.error('%s', self._lost('nothing for %.0f s' % waited))
        os._exit(1)


class Collectives(Workers):
    """TensorFlow's collective operations between processes that each run a `tf.train.Server`.

    The engine orders the members of a group by the text of their task names, and /task:10 comes before /task:2. So rank r takes the task
    number that is the r-th in that order, and what is gathered lies in the order of rank.
    """

    def __init__(self, addresses, rank, config, timeout, device='cpu'):
        tasks = sorted(range(len(addresses)), key=str)
        by_task = [address for _, address in sorted(zip(tasks, addresses))]
        self._hint, self._instance, self._task = 'nccl' if device == 'gpu' else 'ring', 0, tasks[rank]
        try:
            self._server = tf.train.Server({'worker': by_task}, job_name='worker', task_index=self._task, config=self._config(config))
        except (tf.errors.OpError, RuntimeError) as error:
            raise ValueError('TF_CONFIG: expected an address of this machine with a free port. Received: %s for worker %d: %s'
                             % (addresses[rank], rank, one_line(reason(error), 160)))
        super().__init__(rank, len(addresses), timeout, addresses)

    def _config(self, config):
        own = tf.ConfigProto()
        own.CopyFrom(config)
        own.device_filters.append('/job:worker/task:%d' % self._task)  # else a session waits for all workers before it is made
        own.experimental.collective_group_leader = '/job:worker/replica:0/task:0'
        return own

    def session(self, graph, config):
        start = time.monotonic()
        while not _answers(self._addresses[0]):
            if time.monotonic() - start > self._limit:
                raise WorkerLost(self._lost('nothing for %.0f s' % self._limit))
            time.sleep(0.1)
        return tf.Session(self._server.target, graph=graph, config=self._config(config))

    def _collective(self, host, **extra):
        """Group 1: the devices that train. Group 2: the processors beside them, for whole numbers, which NCCL has no way for."""
        self._instance += 1  # every worker builds the same collectives in the same order
        return dict(group_size=self.size, group_key=2 if host else 1, instance_key=self._instance,
                    communication_hint='ring' if host else self._hint, **extra)

    def all_gather(self, tensor):
        rows, *rest = tensor.shape.as_list()
        mine, whole = slice(self.rank * rows, (self.rank + 1) * rows), [rows * self.size] + rest
        if not tensor.dtype.is_floating:
            with tf.device('/cpu:0'):
                return tf.raw_ops.CollectiveGather(input=tensor, shape=whole, **self._collective(True))
        return tf.custom_gradient(lambda local: (tf.raw_ops.CollectiveGather(input=local, shape=whole, **self._collective(False)),
                                                 lambda upstream: upstream[mine]))(tensor)

    def all_reduce(self, tensors):
        buckets, sums = [[]], []
        for tensor in tensors:
            if buckets[-1] and sum(one.shape.num_elements() for one in buckets[-1] + [tensor]) > _BUCKET:
                buckets.append([])
            buckets[-1].append(tensor)
        for bucket in buckets:
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in bucket], 0)
            total = tf.raw_ops.CollectiveReduce(input=flat, merge_op='Add', final_op='Id', subdiv_offsets=[0], **self._collective(False))
            parts = tf.split(total, [tensor.shape.num_elements() for tensor in bucket])
            sums += [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, bucket)]
        return sums

    def broadcast(self, variables):
        def move(variable, **settings):
            if self.is_chief:
                return tf.raw_ops.CollectiveBcastSend(input=variable, **settings)
            return tf.assign(variable, tf.raw_ops.CollectiveBcastRecv(T=variable.dtype.base_dtype, **settings))
        with tf.device('/cpu:0'):
            return tf.group(*[move(variable, **self._collective(True, shape=variable.shape)) for variable in variables])


class Hccl(Workers):
    """The cards of an Ascend training. Every rank builds the same graph and runs the same fetches, or all hang.

    The adapter's npu_distributed_optimizer_wrapper is not used: it averages, in compute_gradients, gradients of separate losses. Here
    every rank computes the loss of the gathered batch, and the parts of its gradient are summed once, by `all_reduce`. How long a rank
    waits for another is HCCL's own business (hccl_timeout): a graph may take minutes to compile.
    """

    def __init__(self):
        super().__init__(*npu.rank_environment(), timeout=float('inf'))
        self._hccl = npu.adapter('hccl.hccl_ops')

    def all_gather(self, tensor):
        rows = tensor.shape.as_list()[0]

        @tf.custom_gradient
        def gathered(own):
            return self._hccl.allgather(own, self.size), lambda upstream: upstream[self.rank * rows:(self.rank + 1) * rows]

        return gathered(tensor) if tensor.dtype.is_floating else self._hccl.allgather(tensor, self.size)

    def all_reduce(self, tensors):
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
        parts = tf.split(self._hccl.allreduce(flat, 'sum', fusion=0), [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors)]

    def broadcast(self, variables):
        """The adapter's own broadcast leaves out what is not trainable, the centers for one."""
        return tf.group(*[tf.assign(variable, self._hccl.broadcast([variable.read_value()], 0)[0]) for variable in variables])


def _checksum(variable):
    """int32: the bits of all values, each times an odd number of its own, summed with wrap-around: exact in any order."""
    value = tf.convert_to_tensor(variable)
    bits = tf.reshape(tf.bitcast(value if value.dtype.size % 4 == 0 else tf.cast(value, tf.float32), tf.int32), [-1])
    return tf.reduce_sum(bits * (2 * tf.range(tf.size(bits)) + 1))


def _answers(address):
    """Whether there is a server; False: surely none, the machine refuses; None: nobody says anything."""
    host, _, port = address.rpartition(':')
    try:
        socket.create_connection((host.strip('[]'), int(port)), timeout=1.0).close()
        return True
    except ConnectionRefusedError:
        return False
    except OSError:
        return None


def choose(options, device):
    """The group this process belongs to: by RANK_SIZE and RANK_ID on an NPU, else by TF_CONFIG.

    Raises:
      ValueError: the environment is wrong, or does not go with the options.
    """
    if device.name == 'npu':
        addresses, workers = (), npu.rank_environment()[1]
    else:
        addresses, rank = cluster.read(os.environ.get('TF_CONFIG', ''))
        workers = max(len(addresses), 1)
    if options.batch_size % workers:
        raise ValueError('--batch_size: expected a multiple of the %d workers, it is the batch of all. Received: %d'
                         % (workers, options.batch_size))
    if workers > 1 and options.iterations_per_loop > 1:  # a sunk loop takes no feeds, and the workers' wishes are fed
        raise ValueError('--iterations_per_loop: expected 1 with several workers, %d. Received: %d'
                         % (workers, options.iterations_per_loop))
    if workers == 1:
        return OneWorker()
    return Collectives(addresses, rank, device.config, options.collective_timeout, device.name) if addresses else Hccl()
