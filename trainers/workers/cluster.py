"""The workers of a run: TF_CONFIG, as TFJob, Slurm scripts and manual set-ups write it."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

from gitloss.errors import one_line

_SHAPE = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


def _wrong(expected: str, received: str) -> ValueError:
    return ValueError(f'TF_CONFIG: expected {expected}. Received: {one_line(received, 120)}')


def _is_address(text: Any) -> bool:
    found = re.fullmatch('.+:([0-9]{1,5})', text) if isinstance(text, str) else None
    return found is not None and 0 < int(found.group(1)) < 1 << 16


def _ranked(jobs: dict[str, Any]) -> list[tuple[str, int, str]]:
    """[(job, index, address), ...] in the order of rank, the chief first."""
    for job, addresses in jobs.items():
        if job not in ('chief', 'master', 'worker'):
            raise _wrong(
                'jobs chief (or master) and worker: all train in step, without parameter servers '
                'or evaluators',
                'job ' + job,
            )
        if not isinstance(addresses, list) or not all(map(_is_address, addresses)):
            raise _wrong(f'cluster.{job}, a list of "host:port"', json.dumps(addresses))
    if {'chief', 'master'} <= set(jobs):
        raise _wrong('one chief, under the name chief or master', 'both')
    ranked = [
        (job, index, address)
        for job, addresses in sorted(jobs.items())
        for index, address in enumerate(addresses)
    ]
    if not ranked:
        raise _wrong('cluster.worker, a list of "host:port"', json.dumps(jobs))
    addresses = [address for _, _, address in ranked]
    if len(set(addresses)) < len(addresses):
        raise _wrong('an address of its own for each worker', ', '.join(addresses))
    return ranked


def read(text: str) -> tuple[list[str], int]:
    """(addresses of all workers, the chief first; rank of this worker) from the text of TF_CONFIG;
    ([], 0) if it names none.

    Raises:
      ValueError: the text does not describe a cluster of workers.
    """
    if text.strip() in ('', '{}'):
        return [], 0
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong('JSON, as ' + _SHAPE, text)
    if not isinstance(config, dict) or not all(
        isinstance(config.get(name), dict) for name in ('cluster', 'task')
    ):
        raise _wrong('objects "cluster" and "task", as ' + _SHAPE, text)
    ranked, task = _ranked(config['cluster']), config['task']
    for rank, (job, index, _) in enumerate(ranked):
        if job == task.get('type') and index == task.get('index') and type(task['index']) is int:
            return [address for _, _, address in ranked], rank
    known = ', '.join(f'{job} {index}' for job, index, _ in ranked)[:80]
    raise _wrong(f'task.type and task.index of one of {known}', json.dumps(task))


def answers(address: str) -> bool | None:
    """Whether a server listens at "host:port". False: the machine refuses the connection. None:
    unknown, as nothing answers.
    """
    host, _, port = address.rpartition(':')
    try:
        socket.create_connection((host.strip('[]'), int(port)), timeout=1.0).close()
        return True
    except ConnectionRefusedError:
        return False
    except OSError:
        return None
