"""Time and memory of center loss + git loss, value and gradient: ours, the direct broadcast
formula, and PyTorch.

    python benchmarks/losses.py [--json=FILE] [--batches=128,1024,4096] [--dims=2,128,512] [--table]

Every case runs in a separate process, one after the other on the same cores; peak memory is the
high-water mark of the process above its memory before the first call. Compare ratios, not
milliseconds. A case whose arrays alone would not fit is not run, and the table says so. PyTorch
(CPU) is optional: without it its column has the error. `--table` measures the loss and the center
update of a step with 1,000 and with 1,000,000 classes in 512 dimensions instead.
"""

import argparse
import itertools
import json
import statistics
import sys
import time

from measuring import cores, memory_mib, parser, run_case, write_json

FORMS = ('pairwise', 'elementwise')
# Limit for the arrays of the broadcast formula, about four of batch x batch x dim.
LIMIT_GIB = 6.0
CLASSES = 1000


def _reset_peak():
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')


def _measure(step):
    """(median ms, peak MiB above idle) of calls of `step` after the first: 15, or those that fit
    into ten seconds, at least one.
    """
    _reset_peak()
    idle = memory_mib()[1]
    step()
    times, begin = [], time.perf_counter()
    while len(times) < 15 and (not times or time.perf_counter() - begin < 10):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3, memory_mib()[0] - idle


def _arrays(batch, dim):
    import numpy

    random = numpy.random.RandomState(0)
    centers = random.randn(CLASSES, dim).astype('float32')
    labels = random.randint(0, CLASSES, batch).astype('int32')
    return (centers[labels] + 0.3 * random.randn(batch, dim)).astype('float32'), labels, centers


def _config(tf):
    return tf.ConfigProto(intra_op_parallelism_threads=cores(), inter_op_parallelism_threads=-1)


def _broadcast(tf, form, batch, embeddings, rows):
    """Center loss + git loss by the direct formula."""
    difference = (embeddings[:, None, :] - rows[None, :, :]) * (1.0 - tf.eye(batch))[:, :, None]
    squares = tf.square(embeddings - rows)
    if form == 'elementwise':
        git = tf.reduce_mean(1.0 / (1.0 + tf.square(difference)))
        return tf.reduce_mean(squares) + git
    pairs = 1.0 / (1.0 + tf.reduce_sum(tf.square(difference), axis=2))
    center = 0.5 * tf.reduce_mean(tf.reduce_sum(squares, axis=1))
    return center + (tf.reduce_sum(pairs) - batch) / (batch * (batch - 1.0))


def _run_tensorflow(kind, form, batch, dim):
    from gitloss import losses
    from gitloss.backend import tf

    x, labels, centers = _arrays(batch, dim)
    with tf.Graph().as_default():
        # In variables, as the inputs of PyTorch are in its tensors; feeding would copy them.
        embeddings, table = (
            tf.identity(tf.get_variable(name, initializer=array, use_resource=True))
            for name, array in (('embeddings', x), ('table', centers))
        )
        classes = tf.constant(labels)
        if kind == 'ours':
            center = losses.center_loss(embeddings, classes, table, form)
            total = center + losses.git_loss(embeddings, classes, table, form)
        else:
            rows = tf.stop_gradient(tf.gather(table, classes))
            total = _broadcast(tf, form, batch, embeddings, rows)
        gradient = tf.gradients(total, embeddings)[0]
        session = tf.Session(config=_config(tf))
        session.run(tf.global_variables_initializer())
        return _measure(session.make_callable([total, gradient.op]))


def _run_torch(form, batch, dim):
    import torch

    torch.set_num_threads(cores())
    x, labels, centers = (torch.from_numpy(array) for array in _arrays(batch, dim))
    x.requires_grad_(True)
    labels = labels.long()

    def step():
        x.grad = None
        rows = centers[labels]
        if form == 'elementwise':
            difference = (x[:, None, :] - rows[None, :, :]) * (1 - torch.eye(batch))[:, :, None]
            total = ((x - rows) ** 2).mean() + (1 / (1 + difference**2)).mean()
        else:
            # Faster than cdist; float32.
            squared = (x**2).sum(1)[:, None] + (rows**2).sum(1)[None, :] - 2 * x @ rows.T
            pairs = (1 / (1 + squared)) * (1 - torch.eye(batch))
            total = 0.5 * ((x - rows) ** 2).sum(1).mean() + pairs.sum() / (batch * (batch - 1))
        total.backward()

    return _measure(step)


def _run_table(classes, batch=1024, dim=512):
    """(ms, peak MiB) of the loss, gradient and center update of a step with `classes` centers in a
    variable.
    """
    import numpy

    from gitloss import losses
    from gitloss.backend import tf

    random = numpy.random.RandomState(0)
    x, labels = (
        random.randn(batch, dim).astype('float32'),
        random.randint(0, classes, batch).astype('int32'),
    )
    with tf.Graph().as_default():
        embeddings = tf.placeholder(tf.float32, x.shape)
        labels_in = tf.constant(labels)
        layer = losses.CenterLoss(classes, form='pairwise')
        center = layer([embeddings, labels_in])
        git = losses.GitLoss(classes, form='pairwise', share=layer)([embeddings, labels_in])
        gradient = tf.gradients(center + git, embeddings)[0]
        with tf.control_dependencies([center, git, gradient]):
            update = layer.update(embeddings, labels_in)
        session = tf.Session(config=_config(tf))
        session.run(tf.global_variables_initializer())
        call = session.make_callable([center, git, update], feed_list=[embeddings])
        return _measure(lambda: call(x))


def _child(arguments):
    kind, form, batch, dim = arguments[0], arguments[1], int(arguments[2]), int(arguments[3])
    if kind == 'table':
        result = _run_table(batch, dim=dim)
    elif kind == 'torch':
        result = _run_torch(form, batch, dim)
    else:
        result = _run_tensorflow(kind, form, batch, dim)
    print(json.dumps(result))


def _case(kind, form, batch, dim):
    """{'ms', 'mib'} of one case in a separate process, or {'not_run': why}."""
    needed = 4.0 * 4 * batch * batch * dim / 2**30
    if (
        kind in ('broadcast', 'torch')
        and (kind == 'broadcast' or form == 'elementwise')
        and needed > LIMIT_GIB
    ):
        return {'not_run': f'needs {needed:.0f} GiB'}
    result, failure = run_case(__file__, '--case', kind, form, batch, dim)
    return {'not_run': failure[:60]} if failure else dict(zip(('ms', 'mib'), result))


def _cell(ours, other):
    if 'not_run' in other:
        return other['not_run']
    return '{:.1f} ms, {:.0f} MiB ({:.2f}x, {:.2f}x)'.format(
        other['ms'], other['mib'], other['ms'] / ours['ms'], other['mib'] / max(ours['mib'], 1)
    )


def _table():
    """Prints the comparison of --table. Returns its cases."""
    results = [
        dict(_case('table', 'pairwise', classes, 512), classes=classes)
        for classes in (1000, 1000000, 1000, 1000000, 1000, 1000000)
    ]
    small, large = (
        statistics.median(case['ms'] for case in results if case['classes'] == classes)
        for classes in (1000, 1000000)
    )
    print(
        f'loss + gradient + center update, batch 1024, dim 512: {small:.1f} ms at 1,000 '
        f'classes, {large:.1f} ms at 1,000,000: {large / small:.2f}x'
    )
    return results


def _grid(batches, dims):
    """Prints the table over forms, batches and dimensions. Returns its cases."""
    print(
        '| form | batch | dim | ours | broadcast (time, memory: times ours) | PyTorch (time, '
        'memory: times ours) |\n|---|---|---|---|---|---|'
    )
    results = []
    for form, batch, dim in itertools.product(FORMS, batches, dims):
        cases = {kind: _case(kind, form, batch, dim) for kind in ('ours', 'broadcast', 'torch')}
        results.append(dict(cases, form=form, batch=batch, dim=dim))
        ours = cases['ours']
        own = ours.get('not_run') or f'{ours["ms"]:.1f} ms, {ours["mib"]:.0f} MiB'
        print(
            f'| {form} | {batch} | {dim} | {own} | '
            f'{_cell(ours, cases["broadcast"])} | {_cell(ours, cases["torch"])} |',
            flush=True,
        )
    return results


def main():
    flags = parser(__doc__)
    flags.add_argument('--batches', default='128,1024,4096')
    flags.add_argument('--dims', default='2,128,512')
    flags.add_argument('--json')
    flags.add_argument('--table', action='store_true')
    flags.add_argument('--case', nargs=4, help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    if arguments.case:
        return _child(arguments.case)
    batches, dims = (
        [int(number) for number in text.split(',')] for text in (arguments.batches, arguments.dims)
    )
    write_json(arguments.json, _table() if arguments.table else _grid(batches, dims))
    return 0


if __name__ == '__main__':
    sys.exit(main())
