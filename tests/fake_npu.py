"""Runs on tests/fakes/npu_bridge, the NPU without a card.

The fake computes on the CPU and raises NpuRefuses where the adapter would fail, silently ignore
something, or hang. Its npu_init is imported only in separate processes: like the real one it
changes every Session. Starting a process takes seconds, so each one makes many runs.
"""

import collections
import json
import os
import tempfile

import forking
import survival
import toys
from conftest import CARD_VARIABLES, FAKES
from trainers import checkpoints, run
from trainers.options import ROOT

NPU_CFG = os.path.join(ROOT, 'flags', 'npu.cfg')


def python(*arguments, **variables):
    """Runs a process with the fake adapter on its path."""
    environment = {name: value for name, value in os.environ.items() if name not in CARD_VARIABLES}
    environment.update(
        variables, PYTHONPATH=os.pathsep.join([ROOT, os.path.join(ROOT, 'tests'), FAKES])
    )
    with tempfile.TemporaryDirectory() as folder:
        return forking.run(arguments, folder, environment)


RUNS = """
import contextlib, io, json, os, sys
import crew
from trainers import run
if sys.argv[1] == 'few blocks':
    import few_blocks
    few_blocks.install()
results = []
for flags, variables in json.loads(sys.argv[2]):
    os.environ.update(variables)
    with contextlib.redirect_stderr(io.StringIO()) as told:
        work = {}
        if sys.argv[1] == 'crew':
            work = {'work': lambda settings: crew.trainer_of(settings).fit() and 0}
        results.append([run.main(arguments=flags, **work), told.getvalue()])
    for name in variables:
        del os.environ[name]
    if sys.argv[1] == 'crew' and results[-1][0]:
        break  # the other rank waits for this one, and has lost it
print(json.dumps(results))
"""
Result = collections.namedtuple('Result', 'returncode stderr')


def job(settings, *flags, **variables):
    """One run of `on_the_fake`."""
    return toys.flags_of(settings) + list(flags), dict(
        variables, FAKE_NPU_RECORD=settings.exp_save_dir + '.record'
    )


def on_the_fake(*jobs, kind='run'):
    """The Result of each job, one after the other in one process; kind "crew": as a worker of
    tests/crew.py; "few blocks": with the networks of tests/few_blocks.py.
    """
    result = python('-c', RUNS, kind, json.dumps(jobs))
    assert result.returncode == 0, result.stderr
    return [Result(*row) for row in json.loads(result.stdout.splitlines()[-1])]


def here(settings, *flags):
    """The exit status of a run in this process, where nothing has replaced the sessions."""
    return run.main(toys.flags_of(settings) + list(flags))


def records(settings, kind):
    with open(settings.exp_save_dir + '.record') as file:
        return [row for row in map(json.loads, file) if kind in row]


def history_of(settings):
    return survival.history(settings.run_dir)


def weights_of(settings, step):
    """{name: array} of all tensors in the checkpoint of a step."""
    path = os.path.join(settings.run_dir, 'ckpt', f'step-{step:08}')
    return survival.tensors(checkpoints.read(path))


def rank_table(path, size, device=0):
    """Writes a rank table of version 1.0: `size` ranks on two hosts, rank r on device r + `device`.
    Returns its path.
    """
    cards = [
        {
            'device_id': str(rank + device),
            'device_ip': f'192.168.100.{rank}',
            'rank_id': str(rank),
        }
        for rank in range(size)
    ]
    servers = [{'server_id': str(host), 'device': cards[host::2]} for host in range(2)]
    path.write_text(
        json.dumps(
            {'version': '1.0', 'server_count': '2', 'server_list': servers, 'status': 'completed'}
        )
    )
    return str(path)


def places(tmp_path):
    """What {file} and {folder} in the text of an option stand for: both exist."""
    (tmp_path / 'file').write_text('{}')
    return {'file': str(tmp_path / 'file'), 'folder': str(tmp_path)}
