"""What the engines in `trainers.workers.engines` share, whichever way they carry the values: stop
and save requests with every step, the chief's decisions, the comparison of replicas, and the
watchdog for workers that do not answer.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from typing import Any, Callable, Sequence

import numpy as np

from gitloss.backend import Tensor, tf
from gitloss.errors import WorkerLost, log, one_line, reason
from gitloss.gradients import custom_gradient
from trainers import streams
from trainers.workers.cluster import answers
from trainers.workers.group import OneWorker

# int32 values. The chief's JSON is broadcast in 64 KiB chunks: collectives need static shapes.
_CHUNK = 1 << 14
# Factor on --collective_timeout at the start, for the start of pods and for imports.
_START_FACTOR = 10
# Seconds without an answer after which a worker tests whether the others still run.
_PATIENCE = 2.0
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


class Workers(OneWorker):
    """The part of a group that all engines share.

    An engine adds three operations: `gather`, which is `all_gather` without a gradient; `reduce`,
    the sum over the workers of a float vector; `broadcast`, which gives variables the chief's
    values on every worker.

    Args:
      rank, size: the number of this worker, and how many there are.
      timeout: seconds without an answer after which the process ends, because not every TensorFlow
        can cancel a collective; infinite for an engine with its own time-out.
      addresses: "host:port" of each worker, to find out which one is gone.

    Attributes:
      bucket: the most numbers in one reduction of gradients.
    """

    bucket: float = math.inf
    gather: Callable[[Tensor], Tensor]
    reduce: Callable[[Tensor], Tensor]
    broadcast: Callable[[Sequence[Tensor]], Tensor]

    def __init__(self, rank: int, size: int, timeout: float, addresses: Sequence[str] = ()) -> None:
        self.rank, self.size, self.is_chief = rank, size, rank == 0
        self._addresses, self._timeout, self._limit = addresses, timeout, timeout * _START_FACTOR
        self._started, self._where = 0.0, 'start'  # 0: no session.run is in progress
        if math.isfinite(timeout):
            threading.Thread(target=self._watch, name='watchdog', daemon=True).start()

    def all_gather(self, tensor: Tensor, sum_gradients: bool = False) -> Tensor:
        if not tensor.dtype.is_floating:
            return self.gather(tensor)
        rows = tensor.shape.as_list()[0]

        def backward(gradient: Tensor) -> Tensor:
            whole = self.all_reduce([gradient])[0] if sum_gradients else gradient
            return whole[self.rank * rows : (self.rank + 1) * rows]

        return custom_gradient(lambda local: (self.gather(local), backward))(tensor)

    def all_reduce(self, tensors: list[Tensor]) -> list[Tensor]:
        buckets: list[list[Tensor]] = [[]]
        sums: list[Tensor] = []
        for tensor in tensors:
            if (
                buckets[-1]
                and sum(one.shape.num_elements() for one in [*buckets[-1], tensor]) > self.bucket
            ):
                buckets.append([])
            buckets[-1].append(tensor)
        for bucket in buckets:
            total = self.reduce(tf.concat([tf.reshape(tensor, [-1]) for tensor in bucket], 0))
            parts = tf.split(total, [tensor.shape.num_elements() for tensor in bucket])
            sums += [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, bucket)]
        return sums

    def build(self, variables: Sequence[Tensor]) -> None:
        self._names = [variable.name.split(':')[0] for variable in variables]
        self._requests = tf.placeholder(tf.int32, [1, 2], name='requests')
        self._all_requests = self.all_gather(self._requests)
        with tf.device('/cpu:0'):
            self._checksums = self.all_gather(tf.stack(list(map(_checksum, variables)))[None, :])
            self._chunk = tf.placeholder(tf.int32, [_CHUNK], name='chunk')
            buffer = tf.get_variable(
                'chunk_buffer',
                [_CHUNK],
                tf.int32,
                tf.zeros_initializer(),
                trainable=False,
                use_resource=True,
                collections=[tf.GraphKeys.LOCAL_VARIABLES],
            )
            self._write, self._read = tf.assign(buffer, self._chunk), buffer.read_value()
        self._broadcast_chunk = self.broadcast([buffer])
        self._broadcast_all = self.broadcast(variables)

    def run(
        self,
        session: Any,
        fetches: Any,
        feeds: dict | None = None,
        requests: Sequence[int] = (0, 0),
        where: str = '',
    ) -> tuple[Any, Sequence[int]]:
        values, all_requests = self._run(
            session,
            [fetches, self._all_requests],
            {**(feeds or {}), self._requests: [requests]},
            where,
        )
        return values, np.max(all_requests, axis=0).tolist()

    def _run(self, session: Any, fetches: Any, feeds: dict | None = None, where: str = '') -> Any:
        self._where = where or self._where
        self._started = time.monotonic()
        try:
            return session.run(fetches, feeds)
        except _LOST as error:
            raise WorkerLost(self._lost(one_line(reason(error), 160)))
        finally:
            self._started = 0.0

    def decide(self, session: Any, decision: Callable[[], Any]) -> Any:
        decided = problem = None
        if self.is_chief:
            try:
                decided = decision()
            except ValueError as error:
                problem = error
        shared, message = self._broadcast_json(session, [decided, problem and str(problem)])
        self._limit = self._timeout  # all workers have started
        if message:
            raise problem or ValueError(message)
        return decided if self.is_chief else shared

    def _broadcast_json(self, session: Any, value: Any) -> Any:
        """The chief's value. Four bytes with the length come before the text."""
        text = json.dumps(value).encode('utf-8') if self.is_chief else b''
        words = np.frombuffer(len(text).to_bytes(4, 'little') + text + bytes(-len(text) % 4), '<i4')
        received = np.zeros(0, np.int32)
        while not len(received) or received.nbytes < 4 + received[0]:
            chunk = words[len(received) : len(received) + _CHUNK]
            # resize repeats values after the end of the text, where nobody reads.
            session.run(self._write, {self._chunk: np.resize(chunk, _CHUNK)})
            self._run(session, self._broadcast_chunk)
            received = np.concatenate([received, session.run(self._read)])
        return json.loads(received.astype('<i4').tobytes()[4 : 4 + received[0]].decode('utf-8'))

    def broadcast_variables(self, session: Any) -> None:
        self._run(session, self._broadcast_all)

    def check_replicas(self, session: Any, step: int) -> None:
        sums = self._run(session, self._checksums)
        for rank, place in np.argwhere(sums != sums[0])[:1]:
            raise WorkerLost(
                f'step {step}: expected the same variables on all {self.size} workers. '
                f'Received: another {self._names[place]} on worker {rank} than on worker 0'
            )

    def finish(self, session: Any) -> None:
        self._try(lambda: session.run(self._broadcast_chunk))

    def close(self, session: Any) -> None:
        self._try(lambda: super(Workers, self).close(session))

    def _try(self, work: Callable[[], Any]) -> None:
        """`work` needs workers that may have ended. The training is over: an error is no loss."""

        def attempt() -> None:
            with contextlib.suppress(tf.errors.OpError):
                work()

        thread = threading.Thread(target=attempt, name=streams.UNFINISHED, daemon=True)
        thread.start()
        thread.join(min(self._timeout, 10.0))

    def _lost(self, received: str) -> str:
        gone = [
            f'worker {rank} at {address} is gone'
            for rank, address in enumerate(self._addresses)
            if rank != self.rank and not answers(address)
        ][:8]
        return (
            f'{self._where}: expected an answer from all {self.size} workers. Received: '
            f'{received}; {", ".join(gone) or "no worker is gone, one hangs or has just ended"}. '
            'Start all of them again to go on from the last checkpoint'
        )

    def _watch(self) -> None:
        """Ends the process when a worker is gone: the main thread may wait for ever, and what is
        saved is whole.

        Not every TensorFlow reports a dead worker. After `_PATIENCE` seconds every worker tests the
        address of the chief, and the chief tests all addresses.
        """
        waited, peers = 0.0, self._addresses if self.is_chief else self._addresses[:1]
        while waited < self._limit and not (
            waited > _PATIENCE and self._limit == self._timeout and False in map(answers, peers)
        ):
            time.sleep(min(0.25, self._timeout / 8.0))
            started = self._started
            waited = time.monotonic() - started if started else 0.0
        log.error('%s', self._lost(f'nothing for {waited:.0f} s'))
        os._exit(1)


def _checksum(variable: Tensor) -> Tensor:
    """int32: the sum of the values' bits, each times an odd number of its own, with wrap-around, so
    that it is exact in any order.
    """
    is_wide = variable.dtype.size % 4 == 0
    value = tf.convert_to_tensor(variable) if is_wide else tf.cast(variable, tf.float32)
    bits = tf.reshape(tf.bitcast(value, tf.int32), [-1])
    return tf.reduce_sum(bits * (2 * tf.range(tf.size(bits)) + 1))
