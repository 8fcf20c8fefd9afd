"""The trainer's sweep beside the bare forward pass, and the latter in larger batches.

    python benchmarks/sweeps.py [--model=mnist_cnn] [--batch=128] [--factors=1,2,4,8] [--turns=5]
        [--images=8192] [--kinds=folder,tfrecord] [--size=112] [--json=FILE]

Images a second, in turns in one process. `bare` computes the embeddings of an array of uint8 and
nothing else, in batches of --batch times each factor. `sweep` is what a measurement reads,
embeddings and predictions, of the same images in memory; `with losses` adds the losses of each
batch. The images of mnist_cnn are those of MNIST; for other models the program draws JPEG files of
--size pixels, and sweeps them in each kind of storage too, with and without other threads that read
the next batches meanwhile. The ratio is the rate beside that of the first contestant in the same
turn: the median, the least and the largest. The last column is the largest difference of an
embedding from that of the first, beside the largest embedding.
"""

import contextlib
import copy
import statistics
import tempfile
import time

import numpy as np
from input import IDENTITIES, WRITERS, sources_of
from measuring import parser, write_json


def data_of(arguments, folder):
    """(DataSpec, {kind: Source}), memory first."""
    from gitloss import data
    from trainers.options import Options

    if arguments.model != 'mnist_cnn':
        shape = (arguments.size, arguments.size, 3)
        spec = data.DataSpec('faces', shape, IDENTITIES, data.CENTERED)
        return spec, sources_of(arguments, folder)
    mnist = data.load('mnist', Options().data_folder)
    pixels = mnist.train.images(np.arange(arguments.images))
    source = data.ArraySource(pixels, mnist.train.labels[: arguments.images])
    return mnist.spec, {'memory': source}


@contextlib.contextmanager
def runtime_of(settings, spec, source):
    """A training's runtime at its first step, in a graph of its own."""
    from gitloss.backend import tf
    from trainers import devices
    from trainers.engine.runtime import Runtime

    runtime = Runtime(settings, spec, devices.choose(settings))
    with tf.Graph().as_default():
        runtime.build(source)
        initial = tf.global_variables_initializer()
        with tf.Session(config=runtime.device.config) as runtime.session:
            runtime.session.run(initial)
            runtime.reach(0, before=0)
            yield runtime


@contextlib.contextmanager
def bare(settings, spec, images, batch):
    """() -> the embeddings of the images, by a graph and a session of their own."""
    from gitloss.backend import tf
    from trainers import devices
    from trainers.engine.inference import network

    with tf.Graph().as_default():
        model, _ = network(settings, spec, batch)
        fed = tf.placeholder(tf.uint8, model.input.shape)
        embeddings = model(tf.cast(fed, tf.float32))
        initial = tf.global_variables_initializer()
        with tf.Session(config=devices.choose(settings).config) as session:
            session.run(initial)
            run = session.make_callable(embeddings, feed_list=[fed])
            starts = range(0, len(images), batch)
            yield lambda: np.concatenate([run(images[one : one + batch]) for one in starts])


def contestants(arguments, stack):
    """{name: () -> embeddings}."""
    from trainers.options import Options

    settings = Options(
        model=arguments.model, batch_size=arguments.batch, embedding_dim=arguments.dim, device='cpu'
    )
    spec, sources = data_of(arguments, stack.enter_context(tempfile.TemporaryDirectory()))
    memory, found = sources['memory'], {}
    images = memory.images(np.arange(len(memory)))
    for factor in map(int, arguments.factors.split(',')):
        batch = factor * arguments.batch
        found[f'bare, batch {batch}'] = stack.enter_context(bare(settings, spec, images, batch))
    runtime = stack.enter_context(runtime_of(settings, spec, memory))

    def swept(source, with_losses=False):
        return lambda: np.concatenate([part[0] for part in runtime.sweep(source, with_losses)])

    found['sweep, with losses'] = swept(memory, True)
    for kind, source in sources.items():
        found[f'sweep, {kind}'] = swept(source)
        if source.parallel:
            alone = copy.copy(source)
            alone.parallel = False
            found[f'sweep, {kind}, not read ahead'] = swept(alone)
    return found


def main():
    flags = parser(__doc__)
    flags.add_argument('--model', default='mnist_cnn')
    for name, default in (
        ('batch', 128),
        ('turns', 5),
        ('images', 8192),
        ('size', 112),
        ('dim', 2),
    ):
        flags.add_argument(f'--{name}', type=int, default=default)
    flags.add_argument('--factors', default='1,2,4,8')
    flags.add_argument('--kinds', default='folder,tfrecord', help=', '.join(WRITERS))
    flags.add_argument('--json')
    arguments = flags.parse_args()
    seconds, embeddings = {}, {}
    with contextlib.ExitStack() as stack:
        calls = contestants(arguments, stack)
        for turn in range(arguments.turns + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                embeddings[name] = call()
                if turn:  # the first turn warms up
                    seconds.setdefault(name, []).append(time.perf_counter() - start)
    first = next(iter(embeddings.values()))
    print(
        '| | images/s | ratio | least | largest | embeddings differ by |\n|---|---|---|---|---|---|'
    )
    for name, times in seconds.items():
        ratios = [one / other for one, other in zip(next(iter(seconds.values())), times)]
        differ = np.abs(embeddings[name] - first).max() / np.abs(first).max()
        print(
            f'| {name} | {arguments.images / statistics.median(times):.0f} | '
            f'{statistics.median(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f} | '
            f'{differ:.1e} |'
        )
    write_json(arguments.json, seconds)


if __name__ == '__main__':
    main()
