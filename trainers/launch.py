"""python -m trainers.launch --workers=2 -- --flagfile=flags/full.cfg: several workers on this machine, for a trial.

Each worker is a `trainers.run` of its own with a TF_CONFIG of fresh ports and its share of the cores. Worker 0, the chief, prints here, the
others into worker-<n>.log in --log_dir. When one fails the others are ended; the exit status is that of the first to fail.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

from trainers.options import ROOT

_GRACE = 20  # seconds in which the others may end by themselves, the chief with a checkpoint perhaps


def free_addresses(count):
    """Addresses on the loopback interface with a port each that was free just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return ['127.0.0.1:%d' % one.getsockname()[1] for one in sockets]


def start(started, arguments, workers, log_dir, python=sys.executable, program=('-m', 'trainers.run')):
    """Starts the workers and adds each to the list `started`, as (process, path of its log or None), in the order of rank."""
    addresses = free_addresses(workers)
    os.makedirs(log_dir, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
    for rank in range(workers):
        config = {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': rank}}
        path = os.path.join(log_dir, 'worker-%d.log' % rank) if rank else None
        with open(path or os.devnull, 'wb') as log:
            # A session of its own: Ctrl-C reaches a worker once, from here, because a second signal would end it without a checkpoint.
            process = subprocess.Popen([python] + list(program) + arguments, cwd=ROOT, env=dict(os.environ, TF_CONFIG=json.dumps(config)),
                                       stdin=subprocess.DEVNULL, stdout=log if rank else None, stderr=log if rank else None,
                                       start_new_session=True)
        started.append((process, path))
        share = len(cores) // workers
        if cores and process.poll() is None:  # all shares of one size; the worker counts its cores much later
            os.sched_setaffinity(process.pid, cores[rank * share:(rank + 1) * share] or [cores[rank % len(cores)]])


def wait(started, grace=_GRACE):
    """The exit status of the first that failed, 0 if none did. Once one has failed the others have `grace` seconds."""
    status, limit, running = 0, float('inf'), True
    while running:
        running = any(process.poll() is None for process, _ in started)
        for rank, (process, path) in enumerate(started):
            if process.poll() and not status:
                status, limit = process.returncode, time.monotonic() + grace
                said = 'trainers.launch: worker %d ended with status %d%s' % (rank, status, ', see ' + path if path else '')
                print(said, file=sys.stderr)
        if time.monotonic() > limit:
            end(started)
        time.sleep(0.05)
    return status if status >= 0 else 128 - status  # of a signal, as shells say it


def end(started):
    for process, _ in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def main(arguments=None):
    parser = argparse.ArgumentParser('python -m trainers.launch', usage='%(prog)s --workers=N [--log_dir=DIR] -- FLAGS OF trainers.run',
                                     description=__doc__.split('\n\n')[1])
    parser.add_argument('--workers', type=int, default=2, help='how many (default 2); --batch_size must be a multiple')
    parser.add_argument('--log_dir', default=os.path.join(ROOT, 'output', 'workers'), help='where worker-1.log ... go')
    parser.add_argument('flags', nargs='*', help='of trainers.run, after --')
    options, started = parser.parse_args(arguments), []
    if options.workers < 1:
        parser.error('--workers: expected at least 1. Received: %d' % options.workers)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda signum, _: [process.send_signal(signum) for process, _ in started if process.poll() is None])
    try:
        start(started, options.flags, options.workers, options.log_dir)
        return wait(started)
    except OSError as error:
        print('trainers.launch: %s' % error, file=sys.stderr)
        return 2
    finally:
        end(started)


if __name__ == '__main__':
    sys.exit(main())
