"""Who takes part in a run: TF_CONFIG, as TFJob, Slurm scripts and hand-made clusters set it."""

from __future__ import annotations

import json
import re

from gitloss.errors import one_line

_SHAPE = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


def _wrong(expected, received):
    return ValueError(f'TF_CONFIG: expected {expected}. Received: {one_line(received, 120)}')


def _ranked(jobs):
    """[(job, index, address), ...] in the order of rank, the chief first."""
    for job, addresses in sorted(jobs.items()):
        if job not in ('chief', 'master', 'worker'):
            raise _wrong(
                'jobs chief (or master) and worker: all train in step, without parameter servers or evaluators',
                'job ' + job,
            )
        if not isinstance(addresses, list) or not all(
            isinstance(one, str) and re.match(r'.+:\d{1,5}$', one) for one in addresses
        ):
            raise _wrong(f'cluster.{job}, a list of "host:port"', json.dumps(addresses))
    ranked = [
        (job, index, address)
        for job, addresses in sorted(jobs.items())
        for index, address in enumerate(addresses)
    ]
    if not ranked:
        raise _wrong('cluster.worker, a list of "host:port"', json.dumps(jobs))
    if len({address for _, _, address in ranked}) < len(ranked):
        raise _wrong(
            'an address of its own for each worker', ', '.join(address for _, _, address in ranked)
        )
    return ranked


def read(text):
    """(addresses of all workers, the chief first; number of this one) from the text of TF_CONFIG;
    ([], 0) for none.

    Raises:
      ValueError: it says something else than a cluster of workers.
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
    mine = [
        rank
        for rank, (job, index, _) in enumerate(ranked)
        if job == task.get('type') and index == task.get('index') and type(task['index']) is int
    ]
    if not mine:
        raise _wrong(
            'task.type and task.index of one of {}'.format(
                ', '.join('%s %d' % (job, index) for job, index, _ in ranked)[:80]
            ),
            json.dumps(task),
        )
    return [address for _, _, address in ranked], mine[0]
