"""Runs the commands in hostile environments: each ends in one clear line or with a right result.

    python benchmarks/environments.py [--cases=100] [--seed=1] [--first=0]
    [--python=INTERPRETER ...] [--keep=FOLDER]

An environment is a combination that the seed draws from DIMENSIONS: streams closed, full or without
a reader; a working folder that is gone; HOME, TMPDIR and the locale; umask; folders or a whole root
that are read-only; limits on open files, size of files and memory. A command that ends with status
0 must have the result of the usual environment: the losses of history.jsonl and a verified
checkpoint, the JSON of evaluate, the bytes of the export. Any other status must come with exactly
one line on stderr that begins with the name of the command, if stderr can be read. Nothing may
hang, die of a signal, or print a traceback. Exit status 1 if anything is wrong. Linux only. No
network.
"""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT]

from benchmarks.chaos import write_subset  # noqa: E402
from benchmarks.measuring import case_parser  # noqa: E402
from benchmarks.surroundings import DIMENSIONS, Place, draw, execute, unusual  # noqa: E402
from gitloss.errors import DamagedCheckpoint  # noqa: E402
from trainers.checkpoints import manifest  # noqa: E402

NOT_OURS = re.compile(
    r'Traceback|Exception ignored|Warning|^ +File "|terminate called|bad_alloc|[a-z]Error: '
    r'|^Matplotlib |^Fatal|^[IWEF][0-9]{4} |^WARNING: All log|Check fail'
)


def losses(run):
    """The losses of a run's history, and its last verified checkpoint's step."""
    with open(os.path.join(run, 'history.jsonl'), encoding='utf-8') as file:
        rows = [json.loads(line) for line in file]
    store = os.path.join(run, 'ckpt')
    last = manifest.read(os.path.join(store, max(os.listdir(store)))).step
    return [[row['step'], row['train_loss'], row['valid_loss']] for row in rows], last


def result(place, out):
    """The result of a command that returned 0, to compare with that of the usual environment."""
    command = place.case['command']
    if command in ('run', 'resume', 'launch'):
        return losses(place.run)
    if command == 'export':
        with open(os.path.join(place.export, 'gitloss.json')) as file:
            return json.load(file)['formats']['pb']['sha256']
    if command == 'evaluate':
        measured = json.loads(out)
        return [measured[part]['loss'] for part in ('valid', 'test')]
    return out


def complaint(place, status, out, err, expected):
    """What is wrong with the end of a command; '' if nothing is."""
    case, lines = place.case, err.splitlines()
    program = place.flags()[0]
    if status is None:
        return 'it hung'
    foreign = [line for line in lines if NOT_OURS.search(line)]
    if foreign:
        return f'{len(foreign)} lines as {foreign[0]!r}'
    ends = {'help': (0, 2, 141), 'mistake': (2,)}.get(case['command'])
    if ends and status not in ends:
        return f'status {status}: {err}'
    if status == 0:
        if case['command'] in ('help', 'evaluate') and case['stdout'] != 'pipe':
            return '' if case['stdout'] == 'closed' else 'status 0 without a result'
        try:
            found = result(place, out)
        except (OSError, ValueError, KeyError, DamagedCheckpoint) as error:
            return f'status 0 without a result: {error}'
        return '' if found == expected else f'another result: {found} for {expected}'
    if not 0 < status < 3 and status != 141:
        return f'status {status}: {err[-300:]}'
    said = [line for line in lines if line.startswith(program + ': ')]
    # A run that is whole but for files that could not be written says so for each of them.
    said = said or [line for line in lines if re.match(r'\w+\.(on_train_end|close): ', line)][:1]
    if case['stderr'] == 'pipe' and status != 141 and len(said) != 1:
        return f'status {status} with {len(said)} lines of its own: {err[-300:]!r}'
    usual = not unusual(dict(case, command='run', name='run')) and case['command'] != 'mistake'
    return f'status {status} in the usual environment: {err}' if usual else ''


def references(folder, data, python):
    """({command: its result in the usual environment}, folder of the finished run)."""
    usual = {name: values[0] for name, values in DIMENSIONS.items()}
    found, finished = {}, None
    for command in ('run', 'launch', 'evaluate', 'export', 'help'):
        place = Place(os.path.join(folder, command), data, finished, dict(usual, command=command))
        status, out, err = execute(place, python)
        if status:
            raise SystemExit(f'{command} in the usual environment: status {status}: {err}')
        found[command] = result(place, out)
        finished = finished or place.run
    return dict(found, resume=found['run'], mistake=''), finished


def main():
    settings = case_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.abspath(settings.keep or os.path.join(temporary, 'environments'))
        return attack(settings, folder)


def attack(settings, folder):
    data = os.path.join(folder, 'data')
    write_subset(data, 200)
    # Absolute, as the commands run in other folders.
    named = settings.python or [sys.executable]
    pythons = [os.path.abspath(shutil.which(python) or python) for python in named]
    known = {
        python: references(os.path.join(folder, f'usual-{number}'), data, python)
        for number, python in enumerate(pythons)
    }
    ends, wrong, begin = collections.Counter(), 0, time.monotonic()
    for number in range(settings.first, settings.first + settings.cases):
        case, python = draw(number, settings.seed), pythons[number % len(pythons)]
        expected, finished = known[python]
        place = Place(os.path.join(folder, str(number)), data, finished, case)
        status, out, err = execute(place, python)
        problem = complaint(place, status, out, err, expected[case['command']])
        ends[f'{case["command"]}: status {status}'] += 1
        wrong += bool(problem)
        said = problem and 'WRONG: ' + problem
        last = err.splitlines()[-1:] if status else []
        print(f'{number} {case["command"]} ({unusual(case)}): {status} {said or last}', flush=True)
    for end, count in sorted(ends.items()):
        print(f'{end}: {count}')
    print(f'{settings.cases} cases, {wrong} wrong, {time.monotonic() - begin:.0f} s')
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
