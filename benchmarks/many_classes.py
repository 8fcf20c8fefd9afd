"""Steps and memory of training with many classes in shards.

    python benchmarks/many_classes.py [--classes=1000,10000,100000,1000000] [--workers=2]
    [--dim=512] [--batch=256] [--steps=6] [--flags="--sample_classes=0.1"] [--json=FILE]
    python benchmarks/many_classes.py --commands --classes=200000 --workers=1

The trainer with `--shard_classes`, momentum and a network of one convolution over made-up images of
8 x 8 pixels, so that the classes are nearly all of the work. Each worker is a process with its part
of the cores. A row: median time of the steps after the first two; peak resident memory of all
workers together, from start to end, with the pages of files (libraries), which the workers share,
once; the seconds and the size of the checkpoint at the end.

With `--commands` the commands on the checkpoint follow, each in a process of its own: seconds of
time and of all cores with its imports, peak resident memory of its largest process, and MiB that it
reads from files.
"""

import importlib
import json
import os
import resource
import statistics
import sys
import tempfile
import time

from measuring import memory_mib, parser, run_case, status_mib, write_json

IMAGES, SIZE = 4096, 8
PEOPLE = 32  # with two images each, for the commands


def dataset_of(classes):
    """Images of random pixels, of random classes; most classes have none."""
    import numpy as np

    from gitloss.data.source import ArraySource, Dataset, DataSpec, Preprocessing

    random = np.random.RandomState(0)
    images = random.randint(0, 256, (IMAGES, SIZE, SIZE, 1)).astype(np.uint8)
    source = ArraySource(images, random.randint(0, classes, IMAGES).astype(np.int32))
    spec = DataSpec('made-up', (SIZE, SIZE, 1), classes, Preprocessing(divisor=255.0))
    return Dataset(spec, source, None, None)


def features(images, initializer):
    from gitloss.backend import keras

    convolution = keras.layers.Conv2D(8, 3, kernel_initializer=initializer(), name='conv')
    return keras.layers.Flatten()(keras.layers.ReLU()(convolution(images)))


def enter_network():
    from gitloss.backbones import BACKBONES, Backbone

    BACKBONES['made_up'] = Backbone(features, smallest=SIZE)


def train(flags, classes, report):
    """One worker, which writes its part of the report."""
    from callbacks.base import Callback
    from trainers import devices, options
    from trainers.engine.trainer import Trainer
    from trainers.workers import engines

    enter_network()
    settings = options.parse(flags)
    ends, saving = [], []

    class Clock(Callback):
        def on_train_batch_end(self, batch, logs=None):
            ends.append(time.perf_counter())

        def on_train_end(self, logs=None):
            start = time.perf_counter()
            self.handle.save()
            saving.append(time.perf_counter() - start)

    device = devices.choose(settings)
    group = engines.choose(settings, device)
    Trainer(settings, dataset_of(classes), [Clock()], device, group=group).fit()
    seconds = [end - start for start, end in zip(ends[1:], ends[2:])]
    write_json(
        f'{report}.{group.rank}',
        {
            'ms': 1e3 * statistics.median(seconds),
            'mib': memory_mib()[0],
            'of_files_mib': status_mib('RssFile'),
            'save_s': saving[0],
        },
    )


def start_workers(flags, workers, folder):
    """Trains with this program as each worker; ends with an error line of a worker that fails."""
    from trainers import launch

    started = []
    try:
        launch.start(started, flags, workers, folder, program=(os.path.abspath(__file__),))
        status = launch.wait(started)
    finally:
        launch.end(started)
    if status:
        for _, path in started[1:]:
            with open(path) as file:
                print(path, file.read(), file=sys.stderr)
        raise RuntimeError(f'{workers} workers: expected status 0. Received: {status}')


def size_of(folder):
    """Bytes of all files."""
    walk = os.walk(folder)
    return sum(os.path.getsize(os.path.join(place, name)) for place, _, its in walk for name in its)


def command(name, flags):
    """Runs a command in this process and prints what it took."""
    start = time.perf_counter()
    enter_network()
    status = importlib.import_module(f'trainers.{name}').main(flags)
    seconds, of_cores = time.perf_counter() - start, sum(os.times()[:4])
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024.0
    with open('/proc/self/io') as file:
        read = int(file.readline().split()[1]) / 2.0**20
    row = {'status': status, 's': seconds, 'cores_s': of_cores, 'read_mib': read}
    print(json.dumps(dict(row, mib=max(memory_mib()[0], children))))


def write_images(folder):
    """A folder of images of PEOPLE, and pairs of them. Returns their paths."""
    import numpy as np
    from PIL import Image

    images, pairs = os.path.join(folder, 'images'), os.path.join(folder, 'pairs.txt')
    pixels = np.random.RandomState(1).randint(0, 256, (PEOPLE, 2, SIZE, SIZE)).astype(np.uint8)
    with open(pairs, 'w') as file:
        for person in range(PEOPLE):
            os.makedirs(os.path.join(images, str(person)))
            for number in range(2):
                path = os.path.join(images, str(person), f'{number}.png')
                Image.fromarray(pixels[person, number]).save(path)
            other = (person + 1) % PEOPLE
            file.write(f'{person}/0.png {person}/1.png 1\n{person}/0.png {other}/1.png 0\n')
    return images, pairs


def measure_commands(run, folder):
    """{command: its row, or the last line of its errors}, of the checkpoint of a run."""
    images, pairs = write_images(folder)
    verified = [f'--pairs={pairs}', f'--pairs_path={images}']
    given = {
        'embed': [f'--data_path={images}', f'--out={folder}/embeddings.npz'],
        'evaluate --pairs': verified,
        'predict enroll': [f'--gallery={folder}/gallery.npz', 'enroll', images],
        'export --noclassifier': ['--noclassifier'],
        'export': [],
    }
    found = {}
    for title, flags in given.items():
        name = title.split()[0]
        here = [] if name == 'export' else ['--device=cpu', '--batch_size=64']
        flags = [f'--ckpt_path={run}', *here, *flags]
        row, error = run_case(__file__, f'--command={name}', '--', *flags)
        print(f'  {title}: {row or error}', flush=True)
        found[title] = row or error
    return found


def measure(classes, workers, asked):
    """The row of a table: a dictionary."""
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        report, run = os.path.join(folder, 'report'), os.path.join(folder, 'run')
        flags = [
            *(f'--worker={report}', f'--classes={classes}', '--'),
            *('--model=made_up', '--shard_classes', '--optimizer=momentum', '--device=cpu'),
            *(f'--embedding_dim={asked.dim}', f'--batch_size={asked.batch}'),
            *(f'--steps={asked.steps}', f'--update_centers={asked.steps}'),
            *('--noevaluate', '--check_replicas=0', f'--exp_save_dir={run}'),
            *asked.flags.split(),
        ]
        start_workers(flags, workers, folder)
        rows = []
        for rank in range(workers):
            with open(f'{report}.{rank}') as file:
                rows.append(json.load(file))
        size = size_of(run)
        commands = measure_commands(run, folder) if asked.commands else {}
    of_files = [row['of_files_mib'] for row in rows]
    mib = sum(row['mib'] for row in rows) - sum(of_files) + max(of_files)
    return {
        'classes': classes,
        'workers': workers,
        'ms': rows[0]['ms'],
        'gib': mib / 1024.0,
        'save_s': rows[0]['save_s'],
        'saved_gib': size / 2.0**30,
        'commands': commands,
    }


def main():
    flags = parser(__doc__)
    flags.add_argument('--classes', default='1000,10000,100000,1000000')
    flags.add_argument('--workers', default='2')
    flags.add_argument('--dim', type=int, default=512)
    flags.add_argument('--batch', type=int, default=256)
    flags.add_argument('--steps', type=int, default=6)
    flags.add_argument('--flags', default='', help='further flags of trainers.run')
    flags.add_argument('--folder', help='where the checkpoints are written and removed')
    flags.add_argument('--commands', action='store_true', help='measure the commands, too')
    flags.add_argument('--json')
    flags.add_argument('--worker', help='for the workers that this program starts')
    flags.add_argument('--command', help='for the commands that this program starts')
    flags.add_argument('rest', nargs='*')
    asked = flags.parse_args()
    if asked.command:
        command(asked.command, asked.rest)
        return
    if asked.worker:
        from trainers import streams

        train(asked.rest, int(asked.classes), asked.worker)
        streams.leave(0)  # as trainers.run: a thread may be inside TensorFlow
    print('| classes | workers | ms/step | peak of all, GiB | checkpoint, s | GiB |')
    print('|---|---|---|---|---|---|', flush=True)
    rows = []
    for workers in map(int, asked.workers.split(',')):
        for classes in map(int, asked.classes.split(',')):
            rows.append(measure(classes, workers, asked))
            row = rows[-1]
            print(
                f'| {classes:,} | {workers} | {row["ms"]:.0f} | {row["gib"]:.2f} | '
                f'{row["save_s"]:.1f} | {row["saved_gib"]:.2f} |',
                flush=True,
            )
    if asked.json:
        write_json(asked.json, rows)


if __name__ == '__main__':
    main()
