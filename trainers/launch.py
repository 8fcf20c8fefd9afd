"""python -m trainers.launch --workers=2 -- --flagfile=flags/full.cfg: several workers on this
machine, for a trial.

Each worker is a `trainers.run` with a TF_CONFIG of free ports, its share of the cores and, if there
are enough, a GPU of its own. Worker 0, the chief, prints to this console, worker n to
worker-<n>.log in --log_dir. If one fails, the others are stopped; the exit status is that of the
first one that failed. If the launcher or its terminal ends, the workers stop as on SIGTERM, with a
checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, List, Mapping, NoReturn, Optional, Sequence, Tuple

from trainers import streams
from trainers.options import ROOT

# Environment variable of a worker whose standard input is a pipe from the launcher.
_FOLLOWS = 'GITLOSS_FOLLOWS_STDIN'
# Environment variable by which a sweep tells its runs the flags of the grid.
FIRST_HPARAMS = 'GITLOSS_FIRST_HPARAMS'
Started = List[Tuple[Any, Optional[str]]]  # (subprocess.Popen, path of its log)


def free_addresses(count: int) -> list[str]:
    """Addresses on the loopback interface, each with a port that is free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return [f'127.0.0.1:{one.getsockname()[1]}' for one in sockets]


def gpus() -> list[str]:
    """The GPUs of this process, as CUDA_VISIBLE_DEVICES names them."""
    devices = map(str, range(len(glob.glob('/dev/nvidia[0-9]*'))))
    names = os.environ.get('CUDA_VISIBLE_DEVICES', ','.join(devices)).split(',')
    # CUDA ignores what follows an empty name or -1.
    return list(itertools.takewhile(lambda name: name not in ('', '-1'), map(str.strip, names)))


def cards(count: int) -> list[str]:
    """One GPU for each of `count` workers; [] if there are fewer."""
    found = gpus()
    return found[:count] if len(found) >= count else []


def follow() -> None:
    """In a worker: sends itself SIGTERM when the launcher ends in whichever way, as the system then
    closes its end of the pipe.
    """

    def wait_for_the_end() -> None:
        os.read(0, 1)  # nothing is ever written
        os.kill(os.getpid(), signal.SIGTERM)

    if os.environ.pop(_FOLLOWS, ''):
        threading.Thread(target=wait_for_the_end, name='follower', daemon=True).start()


def start(
    started: Started,
    arguments: Sequence[str],
    workers: int,
    log_dir: str,
    program: Sequence[str] = ('-m', 'trainers.run'),
) -> None:
    """Starts the workers. Appends each to `started`, in the order of rank."""
    addresses, own_cards = free_addresses(workers), cards(workers)
    os.makedirs(log_dir, exist_ok=True)
    for rank in range(workers):
        config = {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': rank}}
        environment = {'TF_CONFIG': json.dumps(config)}
        # Else each thread that sends a message keeps the memory of one: 0.3 GiB of two workers.
        environment['MALLOC_ARENA_MAX'] = os.environ.get('MALLOC_ARENA_MAX', '1')
        if own_cards:  # else all take the first one, and NCCL refuses two workers on one card
            environment['CUDA_VISIBLE_DEVICES'] = own_cards[rank]
        path = os.path.join(log_dir, f'worker-{rank}.log') if rank else None
        process = spawn([*program, *arguments], environment, path)
        started.append((process, path))
        # All shares have one size. The worker counts its cores much later.
        pin(process, cores_of(rank, workers))


def cores_of(place: int, count: int) -> list[int]:
    """The share of the cores of this process that the one at `place` of `count` gets: at least one.
    [] if the system does not tell.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    share = len(cores) // count
    return cores[place * share : (place + 1) * share] or cores[place % max(len(cores), 1) :][:1]


def pin(process: Any, cores: Sequence[int]) -> None:
    """Restricts a process that has just been started to these cores; to none: it keeps all."""
    if cores and process.poll() is None:
        os.sched_setaffinity(process.pid, cores)


def spawn(arguments: Sequence[str], environment: Mapping[str, str], log: str | None) -> Any:
    """Starts Python as a subprocess.Popen that stops when this process ends, see `follow`. It works
    in this process's folder, to which relative paths in flags belong, and imports this project.

    Args:
      arguments: of Python.
      environment: variables besides those of this process.
      log: the file that its output is written to; None: that of this process.
    """
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get('PYTHONPATH')]))
    with open(log or os.devnull, 'wb') as file:
        # A session of its own: Ctrl-C reaches it once, from here. A second signal would end it
        # without a checkpoint.
        return subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, 'PYTHONPATH': path, **environment, _FOLLOWS: '1'},
            stdin=subprocess.PIPE,
            stdout=file if log else None,
            stderr=file if log else None,
            start_new_session=True,
        )


def wait(started: Started, grace: float = 20) -> int:
    """The exit status of the first worker that failed; 0 if none did. After a failure the others
    have `grace` seconds to end by themselves, the chief perhaps with a checkpoint.
    """
    status, limit, running = 0, float('inf'), True
    while running:
        running = any(process.poll() is None for process, _ in started)
        for rank, (process, path) in enumerate(started):
            if process.poll() and not status:
                status, limit = process.returncode, time.monotonic() + grace
                log = f', see {path}' if path else ''
                streams.say(f'trainers.launch: worker {rank} ended with status {status}{log}')
        if time.monotonic() > limit:
            end(started)
        time.sleep(0.05)
    return status if status >= 0 else 128 - status  # of a signal, as shells give it


def end(started: Started) -> None:
    """Kills the workers that still run."""
    for process, _ in started:
        with process:  # at its end Popen closes the pipe and waits
            process.kill()


class _Parser(argparse.ArgumentParser):
    """Its help and its one line for a mistake reach streams in any state."""

    def print_help(self, file: Any = None) -> None:
        streams.output(self.format_help().rstrip())

    def error(self, message: str) -> NoReturn:
        streams.say(f'trainers.launch: {message}')
        sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    return streams.guarded('trainers.launch', lambda: _launched(arguments))


def _launched(arguments: Sequence[str] | None) -> int:
    started: Started = []
    parser = _Parser(
        'python -m trainers.launch',
        usage='%(prog)s --workers=N [--log_dir=DIR] -- FLAGS OF trainers.run',
        description=(__doc__ or '').rpartition('\n\n')[2],
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=2,
        help='number of workers, default 2; --batch_size must be a multiple of it',
    )
    parser.add_argument(
        '--log_dir',
        default=os.path.join(ROOT, 'output', 'workers'),
        help='folder of worker-1.log, ...; default output/workers in the project',
    )
    parser.add_argument('flags', nargs='*', help='flags of trainers.run, after --')
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f'--workers: expected at least 1. Received: {options.workers}')

    def hand_on(signum: int, _: Any) -> None:
        for process, _ in started:
            process.send_signal(signum if signum == signal.SIGINT else signal.SIGTERM)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(signum) != signal.SIG_IGN:  # as under nohup
            signal.signal(signum, hand_on)
    try:
        start(started, options.flags, options.workers, options.log_dir)
        return wait(started)
    except OSError as error:
        parser.error(str(error))
    finally:
        end(started)


if __name__ == '__main__':
    sys.exit(main())
