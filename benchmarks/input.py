"""Training on images from disk beside the same training fed from memory, and memory over the number
of images.

    python benchmarks/input.py [--model=mobilefacenet] [--size=112] [--batch=32] [--images=2000]
        [--turns=5] [--steps=8] [--kinds=folder,recordio,tfrecord] [--json=FILE]
    python benchmarks/input.py --memory [--counts=1000,100000] [--kinds=...] [--json=FILE]

The first table is of one process. The images are JPEG files of --size pixels that the program
draws into a temporary folder, in each kind of storage; "memory" is an array of the same pixels. All
train the same network on the same batches, in turns: some steps on memory, then as many on each
kind. The first steps of a turn, whose batches were read before it, do not count. The ratio is the
time of a step on memory over that on the kind, of each turn; the table gives the median, the least
and the largest. "augmented" adds flip, crop, brightness and contrast.

--memory: a process for each kind and number of images, the images small and in 100 identities, the
files of a folder hard links to a few; the peak of resident memory after 20 steps.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time

from measuring import ROOT, cores, memory_mib, parser, run_case, training_session, write_json

sys.path.append(os.path.join(ROOT, 'tests'))  # the writers of records and drawings of the tests

IDENTITIES = 100
AUGMENT = 'flip,crop,brightness,contrast'
TINY = 24  # pixels of an image of --memory
LINKS = 1000  # files that are links to one


def images_of(count, size, distinct):
    """`count` pairs (label, JPEG), of which `distinct` differ."""
    import portraits

    shape = (size, size, 3)
    drawn = [
        portraits.encoded(portraits.drawn(number % IDENTITIES, number, shape), 'JPEG', quality=95)
        for number in range(distinct)
    ]
    return ((number % IDENTITIES, drawn[number % distinct]) for number in range(count))


def write_folder(folder, images):
    """A folder for each identity; a file of which the same bytes were written before is a link."""
    first = {}
    for number, (label, content) in enumerate(images):
        place = os.path.join(folder, f'{label:03}')
        os.makedirs(place, exist_ok=True)
        path = os.path.join(place, f'{number:07}.jpg')
        if number % LINKS and content in first:
            os.link(first[content], path)
        else:
            first[content] = path
            with open(path, 'wb') as file:
                file.write(content)


def write_recordio(folder, images):
    import records

    with open(os.path.join(folder, 'train.rec'), 'wb') as file, open(
        os.path.join(folder, 'train.idx'), 'w'
    ) as index:
        for number, (label, content) in enumerate(images):
            index.write(f'{number}\t{file.tell()}\n')
            file.write(records.frames(records.record(label, content, number)))


def write_tfrecord(folder, images):
    """Four shards."""
    from gitloss.backend import tf

    with contextlib.ExitStack() as stack:
        shards = [
            stack.enter_context(tf.io.TFRecordWriter(os.path.join(folder, f'{shard}.tfrecord')))
            for shard in range(4)
        ]
        for number, (label, content) in enumerate(images):
            feature = {
                'image/encoded': tf.train.Feature(bytes_list=tf.train.BytesList(value=[content])),
                'image/class/label': tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            shards[number % 4].write(example.SerializeToString())


WRITERS = {'folder': write_folder, 'recordio': write_recordio, 'tfrecord': write_tfrecord}


def opened(kind, folder, size):
    from gitloss import data

    return data.IMAGES[kind].open(folder, (size, size, 3))


def training(model, batch, source, **changes):
    """The context of `training_session` on a source."""
    from gitloss import data
    from trainers import options

    settings = options.Options(model=model, batch_size=batch, device='cpu', **changes)
    spec = data.DataSpec('faces', source.image_shape, IDENTITIES)
    return training_session(settings, data.Dataset(spec, source))


def sources_of(arguments, folder):
    """{kind: Source} of the same images, memory first."""
    import numpy

    from gitloss import data

    sources = {}
    for kind in arguments.kinds.split(','):
        place = os.path.join(folder, kind)
        os.mkdir(place)
        WRITERS[kind](place, images_of(arguments.images, arguments.size, arguments.images))
        sources[kind] = opened(kind, place, arguments.size)
    one = next(iter(sources.values()))
    pixels = one.images(numpy.arange(len(one)))
    return dict(memory=data.ArraySource(pixels, one.labels), **sources)


def rates(arguments):
    """{contestant: seconds of a step in each turn}."""
    skipped, seen = 2 + 2 * min(cores(), 8), {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        sources = sources_of(arguments, folder)
        last = list(sources)[-1]
        contestants = [(kind, source, '') for kind, source in sources.items()]
        contestants += [(name + ', augmented', sources[name], AUGMENT) for name in ('memory', last)]
        steps = {}
        for name, source, augment in contestants:
            session, net = stack.enter_context(
                training(
                    arguments.model, arguments.batch, source, embedding_dim=128, augment=augment
                )
            )
            steps[name], seen[name] = session.make_callable(net.train_op), []
        for number in range(arguments.turns + 1):
            for name, step in steps.items():
                for _ in range(skipped):
                    step()
                start = time.perf_counter()
                for _ in range(arguments.steps):
                    step()
                if number:  # the first turn warms up
                    seen[name].append((time.perf_counter() - start) / arguments.steps)
                    print(
                        f'turn {number}  {name:<22} {seen[name][-1] * 1e3:.1f} ms', file=sys.stderr
                    )
    return seen


def print_rates(seen):
    print('| | ms/step | rate beside memory | least | largest |\n|---|---|---|---|---|')
    for name, times in seen.items():
        ratios = [ours / its for ours, its in zip(seen['memory'], times)]
        print(
            f'| {name} | {statistics.median(times) * 1e3:.1f} | {statistics.median(ratios):.3f} | '
            f'{min(ratios):.3f} | {max(ratios):.3f} |'
        )


def memory_case(kind, count):
    """(number of images, peak MiB) of a process that opens `count` images and trains on them."""
    with tempfile.TemporaryDirectory() as folder:
        # Written by another process, whose memory does not count.
        _, failure = run_case(
            __file__, '--case=write', '--kinds=' + kind, '--folder', folder, count
        )
        if failure:
            raise RuntimeError(failure)
        source = opened(kind, folder, TINY)
        with training('lenet_pp', 32, source) as (session, net):
            for _ in range(20):
                session.run(net.train_op)
        return len(source), memory_mib()[0]


def memory(arguments):
    """{kind: {count: peak MiB}}."""
    found = {}
    print('| | images | peak MiB | bytes per further image |\n|---|---|---|---|')
    for kind in arguments.kinds.split(','):
        found[kind], last = {}, None
        for count in map(int, arguments.counts.split(',')):
            case = '--case=memory', f'--kinds={kind}', f'--counts={count}'
            result, failure = run_case(__file__, *case)
            if failure:
                print(f'| {kind} | {count:,} | {failure} | |', flush=True)
                continue
            images, mib = result
            found[kind][images] = mib
            grown = f'{(mib - last[1]) * 2**20 / (images - last[0]):.0f}' if last else ''
            print(f'| {kind} | {images:,} | {mib:.0f} | {grown} |', flush=True)
            last = images, mib
    return found


def main():
    flags = parser(__doc__)
    flags.add_argument('--model', default='mobilefacenet')
    for name, default in (
        ('size', 112),
        ('batch', 32),
        ('images', 2000),
        ('turns', 5),
        ('steps', 8),
    ):
        flags.add_argument(f'--{name}', type=int, default=default)
    flags.add_argument('--kinds', default=','.join(WRITERS))
    flags.add_argument('--memory', action='store_true')
    flags.add_argument('--counts', default='1000,100000')
    flags.add_argument('--json')
    flags.add_argument('--case', help=argparse.SUPPRESS)
    flags.add_argument('--folder', nargs=2, help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    if arguments.case == 'write':
        folder, count = arguments.folder
        WRITERS[arguments.kinds](folder, images_of(int(count), TINY, IDENTITIES))
        print('null')
    elif arguments.case == 'memory':
        print(json.dumps(memory_case(arguments.kinds, int(arguments.counts))))
    elif arguments.memory:
        write_json(arguments.json, memory(arguments))
    else:
        seen = rates(arguments)
        print_rates(seen)
        write_json(arguments.json, seen)


if __name__ == '__main__':
    main()
