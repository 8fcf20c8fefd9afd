"""The workers of a run: TF_CONFIG, as TFJob, Slurm scripts and manual set-ups write it."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

from gitloss.errors import check, one_line

_SHAPE = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


def _check(holds: Any, expected: str, received: str) -> None:
    check(holds, 'TF_CONFIG', expected, one_line(received, 120))


def _is_address(text: Any) -> bool:
    found = re.fullmatch('.+:([0-9]{1,5})', text) if isinstance(text, str) else None
    return found is not None and 0 < int(found.group(1)) < 1 << 16


def _ranked(jobs: dict[str, Any]) -> dict[tuple[str, int], str]:
    """{(job, index): address} in the order of rank, the chief first."""
    for job, addresses in jobs.items():
        _check(
            job in ('chief', 'master', 'worker'),
            'jobs chief (or master) and worker: all train in step, without parameter servers or '
            'evaluators',
            'job ' + job,
        )
        _check(
            isinstance(addresses, list) and all(map(_is_address, addresses)),
            f'cluster.{job}, a list of "host:port"',
            json.dumps(addresses),
        )
    _check(
        not {'chief', 'master'} <= set(jobs), 'one chief, under the name chief or master', 'both'
    )
    ranked = {
        (job, index): address
        for job, addresses in sorted(jobs.items())
        for index, address in enumerate(addresses)
    }
    _check(ranked, 'cluster.worker, a list of "host:port"', json.dumps(jobs))
    _check(
        len(set(ranked.values())) == len(ranked),
        'an address of its own for each worker',
        ', '.join(ranked.values()),
    )
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
        raise ValueError(f'TF_CONFIG: expected JSON, as {_SHAPE}. Received: {one_line(text, 120)}')
    _check(
        isinstance(config, dict)
        and all(isinstance(config.get(name), dict) for name in ('cluster', 'task')),
        'objects "cluster" and "task", as ' + _SHAPE,
        text,
    )
    ranked, task = _ranked(config['cluster']), config['task']
    own, places = (task.get('type'), task.get('index')), list(ranked)
    _check(
        own in places and type(own[1]) is int,
        'task.type and task.index of one of '
        + ', '.join(f'{job} {index}' for job, index in places)[:80],
        json.dumps(task),
    )
    return list(ranked.values()), places.index(own)


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
