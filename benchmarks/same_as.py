"""Trains the same flags with two checkouts of the project and compares the results to the last bit.

    python benchmarks/same_as.py COMMIT [--python=INTERPRETER ...] [--cases=quick,workers]
        [--rename=OLD=NEW ...] [--ignore=NAME ...] [--old_flag=FLAG ...] [--new_flag=FLAG ...]

The new checkout is the working tree of this file, uncommitted changes included; the old one is a
temporary clone of COMMIT. Compared are all tensors of the last checkpoint and all values of
history.jsonl but times and speeds. Each run is a subprocess of its own checkout, with its own
flags/quick.cfg, on the CPU cores this program may use (`taskset` restricts them); nothing of either
checkout is imported. The cases, all with --steps=40 --update_centers=20:

    quick     one process
    workers   trainers.launch --workers=2
    resume    --save_every=7, killed by SIGKILL after its second checkpoint, then resumed
    pairwise  --git_loss_form=pairwise --embedding_dim=16

Prints one line per interpreter and case. The exit status is 1 if anything differs or a run fails.
To see the check fail: --new_flag=--seed=2. To see whether a commit is equal to itself: COMMIT=HEAD.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, NamedTuple, Tuple

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SPEED = ('seconds', 'images_per_sec', 'sec_per_step')  # no two runs agree on these columns
LIMIT = 3600  # seconds after which a run counts as hung; it takes one minute on an idle machine
SHOWN = 6  # how many of the largest differences are listed by name
# What a user's shell may set that changes how a run trains.
UNSET = ('TF_', 'GITLOSS_', 'ASCEND_', 'DEVICE_ID', 'RANK_', 'SLURM_', 'OMP_', 'PYTHONPATH')
READ_CHECKPOINT = """
import sys
import numpy
import tensorflow
reader = tensorflow.train.load_checkpoint(sys.argv[1])
names = reader.get_variable_to_shape_map()
numpy.savez(sys.argv[2], **{name: reader.get_tensor(name) for name in names})
"""
VERSIONS = """
import platform
import tensorflow
print(f'Python {platform.python_version()}, TensorFlow {tensorflow.__version__}')
"""
Values = Dict[Tuple[str, str], Any]  # (variable or column, where it was read) -> value


class Case(NamedTuple):
    flags: tuple[str, ...] = ()
    workers: int = 1
    kill_at: int = 0  # SIGKILL when the checkpoint of this step is written; 0: never


CASES = {
    'quick': Case(),
    'workers': Case(workers=2),
    'resume': Case(('--resume=auto', '--save_every=7'), kill_at=14),
    'pairwise': Case(('--git_loss_form=pairwise', '--embedding_dim=16')),
}


class Side(NamedTuple):
    """A checkout: its folder, the flags that only it is given, renamed variables as (from, to)."""

    root: str
    flags: tuple[str, ...]
    renames: tuple[tuple[str, str], ...] = ()


def run(command: list[str], cwd: str, log: str, kill_when: str = '') -> None:
    """Runs a process to its end, or kills it as soon as the path `kill_when` exists.

    Raises:
      RuntimeError: its exit status is not 0 (-9 where it is to be killed), or it hangs.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(UNSET)}
    with open(log, 'ab') as out:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, stderr=out)
    try:
        until = time.monotonic() + LIMIT
        while process.poll() is None and time.monotonic() < until:
            if kill_when and os.path.exists(kill_when):
                break
            time.sleep(0.002 if kill_when else 0.1)
        hung = time.monotonic() >= until
    finally:
        process.kill()
        status = process.wait()
    expected = -signal.SIGKILL if kill_when else 0
    if hung or status != expected:
        with open(log, encoding='utf-8', errors='replace') as file:
            last = ' / '.join(file.read().split('\n')[-6:])
        raise RuntimeError(f'{cwd}: expected exit status {expected:d}. Received: {status}: {last}')


def train(python: str, side: Side, case: Case, folder: str) -> str:
    """Trains one case into an empty folder and returns the run's folder."""
    run_dir, log = os.path.join(folder, 'run'), os.path.join(folder, 'log')
    flags = ['--flagfile=flags/quick.cfg', '--device=cpu', '--steps=40', '--update_centers=20']
    flags += [f'--exp_save_dir={run_dir}', *case.flags, *side.flags]
    command = [python, '-m', 'trainers.run', *flags]
    if case.workers > 1:
        launch = ['-m', 'trainers.launch', f'--workers={case.workers}', f'--log_dir={folder}']
        command = [python, *launch, '--', *flags]
    if case.kill_at:
        run(command, side.root, log, os.path.join(run_dir, 'ckpt', f'step-{case.kill_at:08d}'))
        command.append('--resume=required')  # a run that starts again from step 0 would be equal
    run(command, side.root, log)
    return run_dir


def read_tensors(python: str, run_dir: str, renames: tuple[tuple[str, str], ...]) -> Values:
    """All tensors of the last checkpoint, and its name."""
    paths = sorted(glob.glob(os.path.join(run_dir, 'ckpt', 'step-' + '[0-9]' * 8)))
    if not paths:
        raise RuntimeError(f'{run_dir}: expected a checkpoint. Received: none')
    saved = os.path.join(run_dir, 'tensors.npz')
    model = os.path.join(paths[-1], 'model')
    run([python, '-c', READ_CHECKPOINT, model, saved], run_dir, saved + '.log')
    values: Values = {('name', 'last checkpoint'): os.path.basename(paths[-1])}
    with np.load(saved) as arrays:
        for name in arrays.files:
            renamed = name
            for old, new in renames:
                renamed = renamed.replace(old, new)
            if (renamed, 'last checkpoint') in values:
                raise RuntimeError(f'--rename: expected distinct names. Received: {renamed} twice')
            values[renamed, 'last checkpoint'] = arrays[name]
    return values


def read_history(run_dir: str) -> Values:
    with open(os.path.join(run_dir, 'history.jsonl'), encoding='utf-8') as file:
        rows = [json.loads(line) for line in file]
    return {
        (column, f'history row {number}'): value
        for number, row in enumerate(rows)
        for column, value in row.items()
        if column not in SPEED
    }


def bits(value: Any) -> Any:
    """What is equal for two values only if they agree in type, shape and every bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return repr(value)


def largest_difference(old: Any, new: Any) -> float:
    """The largest absolute difference; infinity where there is none, 0 if only types differ."""
    try:
        apart = np.abs(np.asarray(old, np.float64) - np.asarray(new, np.float64))
        return float(np.nan_to_num(apart, nan=np.inf).max()) if apart.size else 0.0
    except (TypeError, ValueError):  # no numbers, or shapes that do not match
        return float('inf')


def differences(old: Values, new: Values, ignored: list[str]) -> str:
    """What differs, or ''. A name in `ignored` may be missing on one side."""
    both = [key for key in old if key in new and bits(old[key]) != bits(new[key])]
    found = sorted(((largest_difference(old[key], new[key]), key) for key in both), reverse=True)
    texts = [f'{name} ({place}) by {size:.3g}' for size, (name, place) in found[:SHOWN]]
    texts += [f'and {len(found) - SHOWN} more'] if len(found) > SHOWN else []
    for side, one, other in (('old', old, new), ('new', new, old)):
        alone = sorted({name for name, place in set(one) - set(other)} - set(ignored))
        texts += [f'only in the {side}: {", ".join(alone)}'] if alone else []
    return '; '.join(texts)


def compare(python: str, sides: list[Side], case: Case, folder: str, ignored: list[str]) -> str:
    """Trains one case with both checkouts. Returns 'equal ...' or what differs."""
    values = []
    try:
        for name, side in zip(('old', 'new'), sides):
            os.makedirs(os.path.join(folder, name))
            run_dir = train(python, side, case, os.path.join(folder, name))
            values.append((read_tensors(python, run_dir, side.renames), read_history(run_dir)))
    except RuntimeError as error:
        return f'FAILED {error}'
    (old_tensors, old_history), (new_tensors, new_history) = values
    found = differences({**old_tensors, **old_history}, {**new_tensors, **new_history}, ignored)
    counted = f'{len(old_tensors) - 1} tensors, {len(old_history)} values of history'
    return f'DIFFERS {found}' if found else f'equal ({counted})'


def parse() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add('commit', metavar='COMMIT', help='the commit to compare the working tree with')
    add('--python', action='append', help='an interpreter, may be repeated; default: this one')
    add('--cases', default=','.join(CASES), help='default: all')
    add('--rename', action='append', default=[], help='OLD=NEW: in variable names of COMMIT')
    add('--ignore', action='append', default=[], help='a column or variable one side may lack')
    add('--old_flag', action='append', default=[], help='a flag for COMMIT alone')
    add('--new_flag', action='append', default=[], help='a flag for the working tree alone')
    settings = parser.parse_args()
    git = ['git', '-C', ROOT, 'rev-parse', '--verify', settings.commit + '^{commit}']
    commit = subprocess.run(git, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if commit.returncode:
        parser.error(f'COMMIT: expected a commit of this checkout. Received: {settings.commit}')
    settings.commit = commit.stdout.decode().strip()
    if not set(settings.cases.split(',')) <= set(CASES):
        parser.error(f'--cases: expected of {", ".join(CASES)}. Received: {settings.cases}')
    if not all('=' in rename for rename in settings.rename):
        parser.error(f'--rename: expected OLD=NEW. Received: {" ".join(settings.rename)}')
    return settings


def main() -> int:
    settings, status = parse(), 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    renames = tuple(tuple(rename.split('=', 1)) for rename in settings.rename)
    with tempfile.TemporaryDirectory() as folder:
        clone = os.path.join(folder, 'checkout')
        subprocess.run(['git', 'clone', '-qsn', ROOT, clone], check=True)
        subprocess.run(
            ['git', '-C', clone, 'checkout', '-q', '--detach', settings.commit], check=True
        )
        old = Side(clone, tuple(settings.old_flag), renames)
        sides = [old, Side(ROOT, tuple(settings.new_flag))]
        for number, python in enumerate(settings.python or [sys.executable]):
            python = os.path.abspath(python) if os.sep in python else python
            versions = subprocess.check_output([python, '-c', VERSIONS], stderr=subprocess.DEVNULL)
            for name in settings.cases.split(','):
                place = os.path.join(folder, f'{name}-{number}')
                result = compare(python, sides, CASES[name], place, settings.ignore)
                status |= not result.startswith('equal')
                print(f'{versions.decode().strip()}  {name:<8}  {result}', flush=True)
    return int(status)


if __name__ == '__main__':
    sys.exit(main())
