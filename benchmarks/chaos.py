"""Kills runs with SIGKILL at random instants, restarts them, and compares each with an undisturbed
run, bit by bit.

    python benchmarks/chaos.py [--kills=50] [--seed=1] [--python=INTERPRETER ...] [--steps=96]
    [--images=200] [--keep=FOLDER]

A run trains on the first images of the embedded MNIST. It is killed up to five times, each time in
a phase chosen by the seed: anywhere (any instant of the usual length of a run), at start-up, in a
step, in a measurement, while it writes a checkpoint. The table counts the phases that the runs
recorded last. Then the run goes to its end and is compared with an undisturbed run of the same
interpreter: all tensors of the last checkpoint, manifest, history.jsonl, results.json, the scalars
of all event files, the list of files. With several --python the interpreters take turns. Every wait
has a limit. The exit status is 1 if anything differs, hangs or fails. No network.
"""

import argparse
import collections
import gzip
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, 'tests')]

import killable  # noqa: E402
import survival  # noqa: E402

KILLS_A_RUN = 5
CHOICES = ('anything', 'start-up', 'step', 'measurement', 'checkpoint write')
PARTS = (('train', 4), ('t10k', 1))  # and their ratio of images


def write_subset(folder, images):
    """The first images and labels of the embedded MNIST, as raw IDX files."""
    os.makedirs(folder)
    for part, share in PARTS:
        count = images * share // 4
        for kind, size, header in (('images-idx3', 28 * 28, 16), ('labels-idx1', 1, 8)):
            name = f'{part}-{kind}-ubyte'
            with gzip.open(os.path.join(ROOT, 'data', 'mnist', name + '.gz'), 'rb') as file:
                content = file.read(header + count * size)
            with open(os.path.join(folder, name), 'wb') as file:
                file.write(content[:4] + struct.pack('>I', count) + content[8:])


def flags(settings, folder, name):
    return [
        '--data_path=' + os.path.join(folder, 'data'),
        '--exp_save_dir=' + os.path.join(folder, name),
        '--device=cpu',
        f'--steps={settings.steps}',
        f'--update_centers={settings.steps // 4}',
        f'--save_every={settings.steps // 16 + 1}',
        '--batch_size=8',
        f'--log_every={settings.steps // 8}',
    ]


class Twin:
    """The undisturbed run of one interpreter, with its start-up and total time in seconds."""

    def __init__(self, settings, folder, name, python):
        self.python, self.run_dir = python, os.path.join(folder, name)
        begin = time.monotonic()
        run = killable.Run(flags(settings, folder, name), folder, {}, python)
        run.until(lambda: run.marks.count('step') > 0)
        self.start_up = time.monotonic() - begin
        status = run.wait()
        self.seconds = time.monotonic() - begin
        if status:
            raise SystemExit(
                f'the undisturbed run of {python} ended with status {status}:\n{run.printed()}'
            )


def instant(chance, twin, steps):
    """(moment to wait for, its number, seconds to wait then) of a kill."""
    choice = chance.choice(CHOICES)
    if choice == 'anything':
        return 'start-up', 0, chance.uniform(0, twin.seconds)
    if choice == 'start-up':
        return 'start-up', 0, chance.uniform(0, twin.start_up)
    if choice == 'step':
        return 'step', chance.randrange(1, steps // 4), chance.uniform(0, 0.02)
    return (
        choice,
        chance.randrange(1, 3),
        chance.uniform(0, 0.8 if choice == 'measurement' else 0.03),
    )


def one_run(settings, folder, name, twin, chance, kills):
    """Kills a run up to `kills` times, then lets it end. Returns (moments of its kills,
    differences).
    """
    moments = []
    for _ in range(kills):
        moment = killable.Run(flags(settings, folder, name), folder, {}, twin.python).kill(
            *instant(chance, twin, settings.steps)
        )
        if moment is None:  # it was over before
            break
        moments.append(moment)
    last = killable.Run(flags(settings, folder, name), folder, None, twin.python)
    status = last.wait()
    if status:
        return moments, [f'status {status}: {last.printed()}']
    return moments, survival.differences(os.path.join(folder, name), twin.run_dir)


def version(python):
    code = (
        'import platform; from gitloss.backend import tf; print(platform.python_version(), '
        'tf.__version__)'
    )
    found = subprocess.run(
        [python, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, timeout=killable.WAIT, check=True
    ).stdout
    python_version, tensorflow_version = found.decode().split()[-2:]
    return f'Python {python_version}, TensorFlow {tensorflow_version}'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument(
        '--python',
        action='append',
        help='an interpreter with TensorFlow; may be given again. Default: this one',
    )
    parser.add_argument('--steps', type=int, default=96)
    parser.add_argument(
        '--images', type=int, default=200, help='of the training set; a fourth as many for the test'
    )
    parser.add_argument('--keep', help='work in this new folder and leave it')
    settings = parser.parse_args()
    if (
        settings.steps < 64
        or settings.steps % 16
        or not 100 <= settings.images <= 10000
        or settings.kills < 1
    ):
        parser.error(
            'expected --steps a multiple of 16 from 64 on, --images from 100 to 10000, --kills '
            'from 1 on'
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.abspath(settings.keep or os.path.join(temporary, 'chaos'))
        write_subset(os.path.join(folder, 'data'), settings.images)
        return chaos(settings, folder)


def _print_table(names, fallen, runs):
    """Prints the kills by moment, and the runs, of each interpreter."""
    rows = {moment: [fallen[python][moment] for python in names] for moment in killable.MOMENTS}
    rows['all'] = [sum(fallen[python].values()) for python in names]
    rows['runs'] = [runs[python] for python in names]
    print('\n| kills while | {} |\n|---|{}'.format(' | '.join(names.values()), '---|' * len(names)))
    for name, numbers in rows.items():
        print(f'| {name} | {" | ".join(map(str, numbers))} |')


def _twins(settings, folder, names):
    twins = []
    for number, python in enumerate(names):
        twin = Twin(settings, folder, f'twin-{number}', python)
        twins.append(twin)
        print(
            f'{names[python]}: an undisturbed run takes {twin.seconds:.1f} s, '
            f'{twin.start_up:.1f} of them to start',
            flush=True,
        )
    return twins


def chaos(settings, folder):
    begin = time.monotonic()
    names = {python: version(python) for python in settings.python or [sys.executable]}
    twins = _twins(settings, folder, names)
    chance = random.Random(settings.seed)
    fallen = {twin.python: collections.Counter() for twin in twins}
    runs, wrong, number, killed = collections.Counter(), [], 0, 0
    while killed < settings.kills:
        twin = twins[number % len(twins)]
        try:
            kills = min(KILLS_A_RUN, settings.kills - killed)
            moments, differences = one_run(settings, folder, f'run-{number}', twin, chance, kills)
        except AssertionError as error:  # it hung
            moments, differences = [], [str(error)]
        fallen[twin.python].update(moments)
        killed += len(moments)
        runs[twin.python] += 1
        wrong += [f'run {number}, {names[twin.python]}: {line}' for line in differences]
        print(
            f'run {number}: killed in {", ".join(moments) or "nothing"}; '
            f'{"; ".join(differences) or "equal"}',
            flush=True,
        )
        number += 1
        if number > 4 * settings.kills:
            wrong.append('the runs end before they can be killed')
            break
    _print_table(names, fallen, runs)
    print(
        f'\n{killed} kills, {number} runs, {len(wrong)} differences, '
        f'{time.monotonic() - begin:.0f} s'
    )
    print('\n'.join(wrong))
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
