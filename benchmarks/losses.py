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
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FORMS = ('pairwise', 'elementwise')
# Limit for the arrays of the broadcast formula, about four of batch x batch x dim.
LIMIT_GIB = 6.0
CLASSES = 1000


def _peak_mib():
    with open('/proc/self/status') as file:
        fields = dict(line.split(':', 1) for line in file)
    return int(fields['VmHWM'].split()[0]) / 1024.0, int(fields['VmRSS'].split()[0]) / 1024.0


def _reset_peak():
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')


def _measure(step):
    """(median ms, peak MiB above idle) of calls of `step` after the first: 15, or those that fit
    into ten seconds, at least one.
    """
    _reset_peak()
    idle = _peak_mib()[1]
    step()
    times, begin = [], time.perf_counter()
    while len(times) < 15 and (not times or time.perf_counter() - begin < 10):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3, _peak_mib()[0] - idle


def _arrays(batch, dim):
    import numpy

    random = numpy.random.RandomState(0)
    centers = random.randn(CLASSES, dim).astype('float32')
    labels = random.randint(0, CLASSES, batch).astype('int32')
    return (centers[labels] + 0.3 * random.randn(batch, dim)).astype('float32'), labels, centers


def _tensorflow_step(total, feeds, tf, session_config):
    """A callable that feeds the inputs and runs the loss and its gradient."""
    embeddings = list(feeds)[0]
    gradient = tf.gradients(total, embeddings)[0]
    session = tf.Session(config=session_config)
    call = session.make_callable([total, gradient.op], feed_list=list(feeds))
    return lambda: call(*feeds.values())


def _run_tensorflow(kind, form, batch, dim):
    from gitloss import losses
    from gitloss.backend import tf

    x, labels, centers = _arrays(batch, dim)
    with tf.Graph().as_default():
        embeddings, table = (
            tf.placeholder(tf.float32, x.shape),
            tf.placeholder(tf.float32, centers.shape),
        )
        classes = tf.constant(labels)
        if kind == 'ours':
            total = losses.center_loss(embeddings, classes, table, form) + losses.git_loss(
                embeddings, classes, table, form
            )
        else:
            rows = tf.stop_gradient(tf.gather(table, classes))
            difference = (embeddings[:, None, :] - rows[None, :, :]) * (1.0 - tf.eye(batch))[
                :, :, None
            ]
            if form == 'elementwise':
                total = tf.reduce_mean(tf.square(embeddings - rows)) + tf.reduce_mean(
                    1.0 / (1.0 + tf.square(difference))
                )
            else:
                pairs = 1.0 / (1.0 + tf.reduce_sum(tf.square(difference), axis=2))
                total = 0.5 * tf.reduce_mean(
                    tf.reduce_sum(tf.square(embeddings - rows), axis=1)
                ) + (tf.reduce_sum(pairs) - batch) / (batch * (batch - 1.0))
        cores = len(os.sched_getaffinity(0))
        config = tf.ConfigProto(intra_op_parallelism_threads=cores, inter_op_parallelism_threads=1)
        return _measure(_tensorflow_step(total, {embeddings: x, table: centers}, tf, config))


def _run_torch(form, batch, dim):
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
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
        session = tf.Session(
            config=tf.ConfigProto(
                intra_op_parallelism_threads=len(os.sched_getaffinity(0)),
                inter_op_parallelism_threads=1,
            )
        )
        session.run(tf.global_variables_initializer())
        call = session.make_callable([center, git, update], feed_list=[embeddings])
        return _measure(lambda: call(x))


def _child(arguments):
    sys.path.insert(0, ROOT)
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
    result = subprocess.run(
        [sys.executable, os.path.abspath(__file__), '--case', kind, form, str(batch), str(dim)],
        capture_output=True,
        text=True,
    )
    if result.returncode:
        return {'not_run': result.stderr.strip().splitlines()[-1][:60]}
    ms, mib = json.loads(result.stdout.splitlines()[-1])
    return {'ms': ms, 'mib': mib}


def _cell(ours, other):
    if 'not_run' in other:
        return other['not_run']
    return '{:.1f} ms, {:.0f} MiB ({:.2f}x, {:.2f}x)'.format(
        other['ms'], other['mib'], other['ms'] / ours['ms'], other['mib'] / max(ours['mib'], 1)
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--batches', default='128,1024,4096')
    parser.add_argument('--dims', default='2,128,512')
    parser.add_argument('--json')
    parser.add_argument('--table', action='store_true')
    parser.add_argument('--case', nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        return _child(arguments.case)
    results = []
    if arguments.table:
        for classes in (1000, 1000000, 1000, 1000000, 1000, 1000000):
            results.append(dict(_case('table', 'pairwise', classes, 512), classes=classes))
        small, large = (
            statistics.median(r['ms'] for r in results if r['classes'] == n)
            for n in (1000, 1000000)
        )
        print(
            f'loss + gradient + center update, batch 1024, dim 512: {small:.1f} ms at 1,000 '
            f'classes, {large:.1f} ms at 1,000,000: {large / small:.2f}x'
        )
    else:
        print(
            '| form | batch | dim | ours | broadcast (time, memory: times ours) | PyTorch (time, '
            'memory: times ours) |'
        )
        print('|---|---|---|---|---|---|')
        for form in FORMS:
            for batch in (int(n) for n in arguments.batches.split(',')):
                for dim in (int(n) for n in arguments.dims.split(',')):
                    cases = {
                        kind: _case(kind, form, batch, dim)
                        for kind in ('ours', 'broadcast', 'torch')
                    }
                    results.append(dict(cases, form=form, batch=batch, dim=dim))
                    ours = cases['ours']
                    own = ours.get('not_run') or f'{ours["ms"]:.1f} ms, {ours["mib"]:.0f} MiB'
                    print(
                        f'| {form} | {batch} | {dim} | {own} | '
                        f'{_cell(ours, cases["broadcast"])} | {_cell(ours, cases["torch"])} |',
                        flush=True,
                    )
    if arguments.json:
        with open(arguments.json, 'w') as file:
            json.dump(results, file, indent=1)
    return 0


if __name__ == '__main__':
    sys.exit(main())
