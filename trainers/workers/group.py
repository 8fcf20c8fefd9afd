"""What workers that train as one do together, whatever carries the values between them.

What all must do alike goes through a group: values of all are gathered, gradients are summed, the
chief's variables and decisions reach everybody. `OneWorker` does nothing at all; `Workers` is what
the engines of `trainers.workers.engines` have in common: the wishes that ride along with each step,
the chief's decisions, the check that replicas are equal, and the watch over those who do not
answer.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time

import numpy as np

from gitloss.backend import tf
from gitloss.errors import WorkerLost, log, one_line, reason

_LETTER = 1 << 14  # a decision of the chief travels in letters of 64 KiB, of one static shape
# pods and imports take their time: at the start the limit is so many times --collective_timeout
_START_FACTOR = 10
_PATIENCE = (
    2.0  # seconds without an answer after which a worker looks whether the others are still there
)
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


class OneWorker:
    """The trivial group. The graph gets no operation of it, a step no cost."""

    rank, size, is_chief = 0, 1, True

    def all_gather(self, tensor):
        """[rows, ...] of this worker -> [size * rows, ...] of all in the order of rank. Its
        gradient is this worker's rows of the incoming
        one: right where all compute the whole loss of what was gathered, and the gradients of the
          weights are then summed."""
        return tensor

    def gather_statistics(self, tensor):
        """`all_gather` of what the losses of all workers depend on, as the statistics of batch
        normalisation: the gradients of all are summed, then cut to this worker's rows.
        """
        return tensor

    def all_reduce(self, tensors):
        """A list of tensors of one float type -> the list of their sums over the workers."""
        return tensors

    def build(self, variables):
        """Creates what the methods below need. `variables`: what makes a worker the replica of
        another.
        """

    def session(self, graph, config):
        return tf.Session(graph=graph, config=config)

    def run(self, session, fetches, feeds=None, wish=(), what=''):
        """A `session.run` that all workers make together. `wish`: numbers from 0 on. Returns
        (values, the largest wishes of all).
        """
        return session.run(fetches, feeds), wish

    def decide(self, session, decision):
        """What `decision()`, JSON values, returns on the chief. Its ValueError is raised on every
        worker.
        """
        return decision()

    def spread(self, session):
        """Gives every worker the chief's values of all variables."""

    def check_replicas(self, session, step):
        """Raises WorkerLost where the variables of two workers differ."""

    def finish(self, session):
        """Waits for the others at the end, so that none leaves while another still reads from
        it.
        """

    def close(self, session):
        if session is not None:
            session.close()


class Workers(OneWorker):
    """What is the same whatever carries the values. An engine adds `all_gather`, `all_reduce`,
    `broadcast` and perhaps `session`.

    Args:
      rank, size: which one of how many.
      timeout: seconds without an answer after which the process ends, because a collective cannot
        be cancelled on all TensorFlows; infinite where the engine has a time-out of its own.
      addresses: "host:port" of each worker, to see which one is gone.
    """

    def __init__(self, rank, size, timeout, addresses=()):
        self.rank, self.size, self.is_chief = rank, size, rank == 0
        self._addresses, self._timeout, self._limit = addresses, timeout, timeout * _START_FACTOR
        self._started, self._what = None, 'start'
        if math.isfinite(timeout):
            threading.Thread(target=self._watch, name='watchdog', daemon=True).start()

    def gather_statistics(self, tensor):
        rows = tensor.shape.as_list()[0]
        mine = slice(self.rank * rows, (self.rank + 1) * rows)

        @tf.custom_gradient
        def gathered(own):
            return self.all_gather(own), lambda upstream: self.all_reduce([upstream])[0][mine]

        return gathered(tensor)

    def broadcast(self, variables):
        """An op that gives `variables` the chief's values on every worker."""
        raise NotImplementedError

    def build(self, variables):
        self._names = [variable.name.split(':')[0] for variable in variables]
        self._wish = tf.placeholder(tf.int32, [1, 2], name='wish')
        self._wishes = self.all_gather(self._wish)
        with tf.device('/cpu:0'):
            self._sums = self.all_gather(
                tf.stack([_checksum(variable) for variable in variables])[None, :]
            )
            self._letter = tf.placeholder(tf.int32, [_LETTER], name='letter')
            mail = tf.get_variable(
                'mail',
                [_LETTER],
                tf.int32,
                tf.zeros_initializer(),
                trainable=False,
                use_resource=True,
                collections=[tf.GraphKeys.LOCAL_VARIABLES],
            )
            self._write, self._read = tf.assign(mail, self._letter), mail.read_value()
        self._post, self._spread = self.broadcast([mail]), self.broadcast(variables)

    def run(self, session, fetches, feeds=None, wish=(0, 0), what=''):
        self._what = what or self._what
        values, wishes = self._run(
            session, [fetches, self._wishes], {**(feeds or {}), self._wish: [wish]}
        )
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
            letter = words[len(received) : len(received) + _LETTER]
            session.run(
                self._write, {self._letter: np.pad(letter, (0, _LETTER - len(letter)), 'constant')}
            )
            self._run(session, self._post)
            received = np.concatenate([received, session.run(self._read)])
        return json.loads(received.astype('<i4').tobytes()[4 : 4 + received[0]].decode('utf-8'))

    def spread(self, session):
        self._run(session, self._spread)

    def check_replicas(self, session, step):
        sums = self._run(session, self._sums)
        for rank, place in np.argwhere(sums != sums[0])[:1]:
            raise WorkerLost(
                'step %d: expected the same variables on all %d workers. Received: another %s on worker %d than on worker 0'
                % (step, self.size, self._names[place], rank)
            )

    def finish(self, session):
        self._attempt(lambda: session.run(self._post))

    def close(self, session):
        self._attempt(lambda: super(Workers, self).close(session))

    def _attempt(self, work):
        """What concerns a peer that may have left: the training is over, and who has gone is missed
        by nobody.
        """

        def attempt():
            try:
                work()
            except tf.errors.OpError:
                pass

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(min(self._timeout, 10.0))

    def _lost(self, said):
        gone = [
            'worker %d at %s is gone' % (rank, address)
            for rank, address in enumerate(self._addresses)
            if rank != self.rank and not answers(address)
        ][:8]
        return (
            '%s: expected an answer from all %d workers. Received: %s; %s. Start all of them again to go on from the last checkpoint'
            % (
                self._what,
                self.size,
                said,
                ', '.join(gone) or 'no worker is gone, one hangs or has ended just now',
            )
        )

    def _watch(self):
        """Ends the process, from beside a main thread that waits for ever; whatever was saved is
        whole.

        Not every TensorFlow tells that a peer has died. So who has waited for a while knocks: all
        at the chief, the chief at all.
        """
        waited, peers = 0.0, self._addresses if self.is_chief else self._addresses[:1]
        while waited < self._limit:
            time.sleep(min(0.25, self._timeout / 8.0))
            started = self._started
            waited = time.monotonic() - started if started else 0.0
            if waited > _PATIENCE and self._limit == self._timeout and False in map(answers, peers):
                break
        log.error('%s', self._lost(f'nothing for {waited:.0f} s'))
        os._exit(1)


def _checksum(variable):
    """int32: the bits of all values, each times an odd number of its own, summed with wrap-around:
    exact in any order.
    """
    value = tf.convert_to_tensor(variable)
    bits = tf.reshape(
        tf.bitcast(value if value.dtype.size % 4 == 0 else tf.cast(value, tf.float32), tf.int32),
        [-1],
    )
    return tf.reduce_sum(bits * (2 * tf.range(tf.size(bits)) + 1))


def answers(address):
    """Whether there is a server; False: surely none, the machine refuses; None: nobody says
    anything.
    """
    host, _, port = address.rpartition(':')
    try:
        socket.create_connection((host.strip('[]'), int(port)), timeout=1.0).close()
        return True
    except ConnectionRefusedError:
        return False
    except OSError:
        return None
