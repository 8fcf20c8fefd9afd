"""The cost of a training step with several workers: a model, and what the graph of one worker has.

The model counts numbers of 4 bytes. The graph is that of worker 0 of any number, built in one
process with a group that sends nothing. `python benchmarks/workers.py --model` prints the model,
`--classes=5000` the model beside bytes that were sent and beside the matrix products of the graph.
"""

import math
from typing import NamedTuple

import measuring  # noqa: F401 - makes the project importable

LATENCY = 50e-6  # seconds for a round between two workers
_PRODUCTS = 9  # of the gradients of the three terms
LINKS = {'10 Gbit/s': 1.25e9, '100 Gbit/s': 12.5e9}  # bytes a second


class Case(NamedTuple):
    """A training.

    Attributes:
      workers, rows, dim, classes: N workers with `rows` images each, in `dim` dimensions.
      shared: parameters of the network; with sharded classes all but the class weights.
      is_sharded, sample: --shard_classes and --sample_classes.
    """

    workers: int
    rows: int
    dim: int
    classes: int
    shared: int
    is_sharded: bool = False
    sample: float = 1.0

    @property
    def batch(self):
        return self.workers * self.rows

    @property
    def held(self):
        """Classes whose weights and centers a worker has."""
        return self.classes / self.workers if self.is_sharded else self.classes

    @property
    def columns(self):
        """Classes whose logits a worker computes. Of a sample the mean: those that are drawn, and
        of the others those in the batch, whose labels are uniform.
        """
        if self.sample == 1:
            return self.held
        in_batch = 1.0 - (1.0 - 1.0 / self.classes) ** self.batch
        return (self.sample + (1.0 - self.sample) * in_batch) * self.held


def messages(case):
    """(gathered, reduced): for each collective operation of a step the numbers that every worker
    then has, without the stop and save requests.
    """
    features = case.batch * case.dim
    if case.is_sharded:  # labels, embeddings, features, statistics; centers, gradients
        gathered = [case.batch, features, features, 5 * case.batch * case.workers]
        return gathered, [features, features, case.shared + 3 + _PRODUCTS]
    return [case.batch, features], [case.shared + case.classes * case.dim + 4 + _PRODUCTS]


def sent(case):
    """Bytes that one worker sends in a step, by rings, with two requests of each worker."""
    gathered, reduced = messages(case)
    numbers = sum(gathered) + 2 * case.workers + 2 * sum(reduced)
    return 4.0 * numbers * (case.workers - 1) / case.workers


def seconds(case, bandwidth):
    """Communication of a step, nothing of which overlaps: rounds and bytes."""
    gathered, reduced = messages(case)
    rounds = (case.workers - 1) * (len(gathered) + 1 + 2 * len(reduced))
    return rounds * LATENCY + sent(case) / bandwidth


def flops(case):
    """{part: FLOP} of one worker's matrix products, without the network: logits and their two
    gradients; the two products of the pair term.
    """
    rows = case.batch if case.is_sharded else case.rows
    return {
        'classes': 6.0 * rows * case.dim * case.columns,
        'pairs': 4.0 * case.rows * case.batch * case.dim,
    }


def memory(case, slots):
    """{part: bytes} of one worker, without the network. `slots`: of the optimizer, 2 for Adam.

    held     class weights, slots, centers, counts
    step     gradient of the class weights; of a sample also their rows; four times [batch, dim];
             statistics of all shards
    logits   [rows, columns], of which a step has several copies, see docs/many_classes.md
    labels   comparison of all labels, as booleans and as numbers
    """
    is_sample = case.sample < 1
    rows = case.batch if case.is_sharded else case.rows
    statistics = 5 * case.batch * case.workers * case.is_sharded
    step = case.columns * case.dim * (1 + is_sample) + 4 * case.batch * case.dim + statistics
    return {
        'held': 4.0 * case.held * (case.dim * (2 + slots) + 1),
        'step': 4.0 * step,
        'logits': 4.0 * rows * case.columns,
        'labels': 5.0 * case.batch**2,
    }


def matrix_products(graph, fetches, columns):
    """{part: FLOP} of the matrix products that `fetches` need, by name scope, and the names of all
    that they need. A size that only the step knows is that of a sample: `columns`.
    """
    from gitloss.backend import tf

    names = [fetch.name.split(':')[0] for fetch in fetches]
    needed = tf.graph_util.extract_sub_graph(graph.as_graph_def(), names).node
    scopes = {'softmax_loss': 'classes', 'git_loss': 'pairs'}
    found = dict.fromkeys([*scopes.values(), 'network'], 0.0)
    for node in needed:
        if 'MatMul' in node.op:
            op = graph.get_operation_by_name(node.name)
            inner = op.inputs[0].shape.as_list()[0 if op.get_attr('transpose_a') else 1]
            sizes = [size or columns for size in [inner, *op.outputs[0].shape.as_list()]]
            part = [part for scope, part in scopes.items() if scope in node.name] or ['network']
            found[part[0]] += 2.0 * sizes[0] * sizes[1] * sizes[2]
    return found, {node.name for node in needed}


def counted(flags, dataset, workers, columns=None):
    """What the step of worker 0 of `workers` has: `gathered` and `reduced`, as of `messages`, and
    `flops`, as of `flops` and of the network's dense layers, with so many columns of a sample. The
    flags must not have the elementwise form, whose pair term has no matrix products.
    """
    from gitloss import compilation
    from gitloss.backend import tf
    from trainers import devices, options
    from trainers.engine.graph import TrainingGraph
    from trainers.workers.base import Workers

    class Silent(Workers):
        """Gathers this worker's rows again and again, and sums nothing."""

        def gather(self, tensor):
            return tf.concat([tensor] * self.size, 0, name='gathered')

        def reduce(self, flat):
            return tf.identity(flat, name='reduced')

    settings, compiles = options.parse(flags), compilation.COMPILES
    compilation.COMPILES = False  # what XLA compiles is not in the graph
    try:
        with tf.Graph().as_default() as graph:
            group = Silent(0, workers, math.inf)
            net = TrainingGraph(
                settings, dataset.spec, devices.choose(settings), group, source=dataset.train
            )
            fetches = [net.train_op, net.steps_done, *net.step_fetches.values()]
            products, needed = matrix_products(graph, fetches, columns)
            sizes = {'gathered': [], 'reduced': []}
            for name in sorted(needed):
                kind = name.split('/')[-1].rsplit('_', 1)[0].rstrip('_')
                if kind in sizes:
                    output = graph.get_operation_by_name(name).outputs[0]
                    sizes[kind].append(output.shape.num_elements())
    finally:
        compilation.COMPILES = compiles
    return dict(sizes, flops=products)


def print_networks():
    """The communication of a step of two networks of few classes, and its pair term."""
    print(
        '| network | workers | link | all-reduce ms | gather ms | pair term, GFLOP per worker |\n'
        '|---|---|---|---|---|---|'
    )
    for name, parameters, dim in (
        ('mnist_cnn, 0.29 M', 288770, 2),
        ('ResNet-50 like, 25 M', 25000000, 512),
    ):
        for workers in (8, 64, 512):
            case = Case(workers, 128, dim, 0, parameters)
            for link, bandwidth in LINKS.items():
                reduce = 2 * (workers - 1) * (LATENCY + 4 * parameters / workers / bandwidth)
                gather = (workers - 1) * (LATENCY + 4 * 128 * (dim + 1) / bandwidth)
                print(
                    f'| {name} | {workers} | {link} | {1e3 * reduce:.1f} | {1e3 * gather:.1f} | '
                    f'{flops(case)["pairs"] / 1e9:.3g} |'
                )


def _three(value):
    """Three digits, or the whole number."""
    return f'{value:.0f}' if value >= 100 else f'{value:.3g}'


def print_classes():
    """Whole, sharded and sampled classes beside a network of 25 million parameters."""
    print(
        '| classes | workers | | held, sgd / momentum / Adam, GB | step GB | logits GB | '
        'labels GB | sent MB | ms, 10 / 100 Gbit/s | classes, GFLOP | pairs |\n'
        '|---|---|---|---|---|---|---|---|---|---|---|'
    )
    for classes in (1000000, 10000000):
        for workers in (8, 64, 512):
            for kind, settings in (
                ('whole', {}),
                ('sharded', {'is_sharded': True}),
                ('sampled, 0.1', {'is_sharded': True, 'sample': 0.1}),
            ):
                case = Case(workers, 128, 512, classes, 25000000, **settings)
                held = ' / '.join(_three(memory(case, slots)['held'] / 1e9) for slots in range(3))
                parts = ' | '.join(
                    _three(memory(case, 0)[part] / 1e9) for part in ('step', 'logits', 'labels')
                )
                times = ' / '.join(f'{1e3 * seconds(case, link):.0f}' for link in LINKS.values())
                work = ' | '.join(_three(value / 1e9) for value in flops(case).values())
                print(
                    f'| {classes / 1e6:.0f} M | {workers} | {kind} | {held} | {parts} | '
                    f'{sent(case) / 1e6:.0f} | {times} | {work} |'
                )
