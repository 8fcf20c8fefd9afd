"""Forges manifests of checkpoints, with sums that fit: each command ends in one clear line or with
a right result.

    python benchmarks/forged.py [--cases=100] [--seed=1] [--first=0] [--python=INTERPRETER ...]
    [--keep=FOLDER]

A case changes one or two places anywhere in the manifest of the newest checkpoint of a run, and
signs it anew. Then evaluate (of the checkpoint, and of the run), export, a resumed run and a run
with --init_checkpoint meet it, each in a process of its own. A status of 0 must come with the
result of the genuine checkpoint, or of the one before. Where the manifest decides (DECIDES), it may
be another one, of finite numbers; the weights of a resumed run are always compared. A status of 1
or 2 must come with one line that names the checkpoint, or the run whose flags or data differ.
Nothing may hang, die of a signal, print a traceback, take more than 1.5 times the usual memory, or
touch the other checkpoints. With several --python each tries all cases. Exit status 1 if anything
is wrong. Linux only. No network.
"""

from __future__ import annotations

import collections
import math
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT]

from benchmarks.chaos import version, write_subset  # noqa: E402
from benchmarks.environments import NOT_OURS  # noqa: E402
from benchmarks.forging import FLAGS, Place, execute, forge  # noqa: E402
from benchmarks.measuring import case_parser  # noqa: E402
from gitloss import backend  # noqa: E402, F401 - once, before all forks
from gitloss.errors import DamagedCheckpoint  # noqa: E402
from trainers.checkpoints import manifest  # noqa: E402

_NETWORK = {'options', 'dataset'}
# {command: the entries of a manifest that decide its result}
DECIDES = {
    'evaluate': _NETWORK,
    'evaluate run': _NETWORK,
    'export': _NETWORK,
    'fine-tune': set(),
    'resume': {'epoch', 'logs', 'totals', 'timing', 'callbacks', 'options'},
}
OUTCOMES = ('right', 'passed over', 'as forged', 'refused', 'wrong')


def _are_finite(value):
    if isinstance(value, list):
        return all(map(_are_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _refusal(place, status, out, err):
    """'' if the command ended in one line that names what is wrong, else what it did."""
    said = [line for line in err.splitlines() if line.startswith('trainers.')]
    names = place.forged in err or f' of the run in {place.run}' in err
    is_clear = status in (1, 2) and len(said) == 1 and names and not out
    return '' if is_clear else f'status {status}: {err[-400:]!r}'


def outcome(place, name, ended, expected, entries):
    """How a command ended: (one of OUTCOMES, what is wrong).

    Args:
      ended: (status, stdout, stderr).
      expected: the results that are right, as of Place.result.
      entries: those of the manifest that were changed.
    """
    status, out, err = ended
    if status is None:
        return 'wrong', 'it hung'
    foreign = [
        line
        for line in err.splitlines()
        if NOT_OURS.search(line) and place.forged not in line  # which may quote an error
    ]
    if foreign:
        return 'wrong', f'{len(foreign)} lines as {foreign[0]!r}'
    if status:
        problem = _refusal(place, *ended)
        return 'wrong' if problem else 'refused', problem
    try:
        found = place.result(name, out)
    except (OSError, ValueError, KeyError, DamagedCheckpoint) as error:
        return 'wrong', f'status 0 without a result: {error}'
    if found in expected:
        return 'passed over' if 'checkpoint passed over' in err else 'right', ''
    if entries & DECIDES[name] and found[0] == expected[0][0] and _are_finite(found[1]):
        return 'as forged', ''
    return 'wrong', f'another result: {found}'


def finished_run(folder, data):
    """The folder of a run of FLAGS."""
    path = os.path.join(folder, 'finished')
    flags = ['--data_path=' + data, *FLAGS, '--exp_save_dir=' + path]
    command = [sys.executable, '-m', 'trainers.run', *flags]
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    return path


def references(folder, data, finished, is_finished):
    """{command: its right results}."""
    found = {}
    for name in DECIDES:
        place = Place(os.path.join(folder, f'{name} {is_finished}'), data, finished, is_finished)
        status, out, err = execute(place, name)
        if status:
            raise SystemExit(f'{name} of the genuine checkpoint: status {status}: {err}')
        found[name] = [place.result(name, out)]
    found['evaluate run'] += found['evaluate']  # if the metrics are forged
    return found


def one_case(place, chance, expected):
    """Forges a checkpoint and tries all commands. Returns (description, {command: outcome})."""
    before = place.kept()
    genuine = manifest.read(place.forged).manifest
    forged, entries, said = forge(genuine, chance)
    place.sign(forged)
    found = {}
    for name in DECIDES:
        usual = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        found[name] = outcome(place, name, execute(place, name), expected[name], entries)
        if resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 1.5 * usual:
            found[name] = 'wrong', 'it took more than 1.5 times the usual memory'
    if place.kept() != before:
        found['resume'] = 'wrong', 'other checkpoints are changed'
    return said, found


def attack(settings, folder):
    """All cases on this interpreter. Returns the number of wrong ends."""
    begin, data = time.monotonic(), os.path.join(folder, 'data')
    write_subset(data, 200)
    finished = finished_run(folder, data)
    expected = [references(folder, data, finished, is_finished) for is_finished in (False, True)]
    ends = {name: collections.Counter() for name in DECIDES}
    for number in range(settings.first, settings.first + settings.cases):
        chance = random.Random(f'{settings.seed} {number}')
        is_finished = chance.random() < 0.3
        place = Place(os.path.join(folder, str(number)), data, finished, is_finished)
        said, found = one_case(place, chance, expected[is_finished])
        print(f'{number} ({said}): {", ".join(end for end, _ in found.values())}', flush=True)
        for name, (end, problem) in found.items():
            ends[name][end] += 1
            if problem:
                print(f'  WRONG: {name}: {problem}', flush=True)
        if not settings.keep:
            shutil.rmtree(place.folder)
    print(f'\n{version(sys.executable)}\n\n| command | {" | ".join(OUTCOMES)} |')
    print('|---' * (1 + len(OUTCOMES)) + '|')
    for name, counts in ends.items():
        print(f'| {name} | {" | ".join(str(counts[end]) for end in OUTCOMES)} |')
    wrong = sum(counts['wrong'] for counts in ends.values())
    print(f'\n{settings.cases} cases, {wrong} wrong, {time.monotonic() - begin:.0f} s', flush=True)
    return wrong


def main():
    settings = case_parser(__doc__).parse_args()
    if settings.python:
        own = [f'--{name}={getattr(settings, name)}' for name in ('cases', 'seed', 'first')]
        keep = [
            settings.keep and f'--keep={settings.keep}-{n}' for n in range(len(settings.python))
        ]
        return max(
            subprocess.run(
                [python, os.path.abspath(__file__), *own, *filter(None, [kept])]
            ).returncode
            for python, kept in zip(settings.python, keep)
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.abspath(settings.keep or os.path.join(temporary, 'forged'))
        return 1 if attack(settings, folder) else 0


if __name__ == '__main__':
    sys.exit(main())
