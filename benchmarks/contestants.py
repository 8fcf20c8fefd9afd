"""The contestants of step.py: ours, the upstream graph, PyTorch, and the matrix product.

Each is a function of the number of steps; it imports what it needs and runs in a separate process.
"""

import itertools
import os
import statistics
import tempfile
import time

from measuring import ROOT, cores, median_ms, training_session

BATCH = 128


def ours(steps, dataset=None, warm_up=15, **values):
    """Median ms of a step of the real trainer, by default with the settings of flags/full.cfg.

    values: other settings.
    """
    from callbacks.base import Callback
    from gitloss import data
    from trainers import callback_list, devices, options
    from trainers.engine.trainer import Trainer

    class Clock(Callback):
        """Measures from the end of a step to that of the next: session, callbacks, everything."""

        def __init__(self):
            self.ends = []

        def on_train_batch_end(self, batch, logs=None):
            self.ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = options.Options(
            steps=steps + warm_up,
            update_centers=steps + warm_up,
            evaluate=False,
            exp_save_dir=folder,
            device='cpu',
            **values,
        )
        dataset = dataset or data.load(settings.dataset, settings.data_folder)
        clock = Clock()
        callbacks = callback_list.build_callbacks(
            settings, dataset, {'versions': {}, 'device': 'cpu'}, []
        ) + [clock]
        Trainer(settings, dataset, callbacks, devices.choose(settings)).fit()
    ends = clock.ends[warm_up - 1 :]
    return statistics.median(b - a for a, b in zip(ends, ends[1:])) * 1e3


def bare(steps):
    """Median ms of our training operation alone, with its input pipeline."""
    from gitloss import data
    from trainers import options

    settings = options.Options(device='cpu')
    dataset = data.load(settings.dataset, settings.data_folder)
    with training_session(settings, dataset) as (session, net):
        return median_ms(session.make_callable(net.train_op), steps)


def _batches():
    """Yields (float32 images, labels) of the training set, the images as the networks take them."""
    import numpy

    from gitloss import data

    dataset = data.load('mnist', os.path.join(ROOT, 'data', 'mnist'))
    stream = data.BatchStream(dataset.train, BATCH, 1)
    for number in itertools.count():
        pixels, labels = stream.batch(number)
        yield pixels.astype(numpy.float32) / 255.0 - dataset.spec.preprocessing.mean, labels


def _weights(tf, name, shape):
    return tf.get_variable(name, shape, initializer=tf.glorot_uniform_initializer())


def _zeros(tf, name, shape, **settings):
    return tf.get_variable(name, shape, initializer=tf.zeros_initializer(), **settings)


def _embeddings(tf, images):
    x, channels = images, 1
    for stage, filters in enumerate((32, 64, 128), 1):
        for part in (f'{stage}1', f'{stage}2'):
            kernel = _weights(tf, 'w' + part, [3, 3, channels, filters])
            x = tf.nn.conv2d(x, kernel, [1, 1, 1, 1], 'SAME')
            x, channels = tf.nn.relu(x + _zeros(tf, 'b' + part, [filters])), filters
        x = tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], 'VALID')
    flat = tf.reshape(x, [-1, 1152])
    products = tf.matmul(flat, _weights(tf, 'w_embeddings', [1152, 2]))
    return products + _weights(tf, 'b_embeddings', [1, 2])


def _network(tf, images, labels):
    """(total loss, accuracy, center update) of the published graph, the git loss by broadcasting
    as in upstream's code.
    """
    embeddings = _embeddings(tf, images)
    slopes = _zeros(tf, 'slopes', [2])
    active = tf.nn.relu(embeddings) + slopes * (embeddings - tf.abs(embeddings)) * 0.5
    products = tf.matmul(active, _weights(tf, 'w_logits', [2, 10]))
    logits = products + _weights(tf, 'b_logits', [1, 10])
    centers = _zeros(tf, 'centers', [10, 2], trainable=False)
    rows = tf.gather(centers, labels)
    difference = (embeddings[:, None] - rows[None, :]) * (1.0 - tf.eye(BATCH))[:, :, None]
    git = tf.reduce_mean(1.0 / (1.0 + tf.square(difference)))
    _, where, counts = tf.unique_with_counts(labels)
    moves = 0.5 * (rows - embeddings) / tf.cast(1 + tf.gather(counts, where), tf.float32)[:, None]
    update = tf.scatter_sub(centers, labels, moves)
    softmax = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    )
    accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), labels), tf.float32))
    return softmax + tf.reduce_mean(tf.square(embeddings - rows)) + git, accuracy, update


def upstream(steps):
    """Median ms of a step of the published graph."""
    # Not through gitloss.backend: TensorFlow as installed, without our settings.
    import tensorflow.compat.v1 as tf

    batches = _batches()
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, 28, 28, 1])
        labels = tf.placeholder(tf.int64, [None])
        loss, accuracy, update = _network(tf, images, labels)
        train = tf.train.AdamOptimizer(1e-3).minimize(loss)
        session = tf.Session()
        session.run(tf.global_variables_initializer())

        def step():
            pixels, classes = next(batches)
            session.run([train, accuracy, loss, update], {images: pixels, labels: classes})

        return median_ms(step, steps)


def _torch(steps, compiled=False, in_bfloat16=False, is_channels_last=False):
    """Median ms of a step of the same network, loss and optimizer in PyTorch."""
    import torch
    import twins

    body, head = twins.mnist_cnn()
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    body, centers = body.to(memory_format=layout), torch.zeros(10, 2)
    step = twins.training_step(body, head, _batches(), centers, compiled, layout, in_bfloat16)
    return median_ms(step, steps)


def _tensorflow_product(size, dtype):
    from gitloss.backend import tf

    with tf.Graph().as_default():
        a, b = (
            tf.get_variable(name, [size, size], dtype, tf.ones_initializer(), use_resource=True)
            for name in 'ab'
        )
        config = tf.ConfigProto(
            intra_op_parallelism_threads=cores(), inter_op_parallelism_threads=1
        )
        session = tf.Session(config=config)
        session.run(tf.global_variables_initializer())
        return session.make_callable(tf.matmul(a, b).op)


def _torch_product(size, dtype):
    import torch

    torch.set_num_threads(cores())
    a, b = (torch.rand(size, size).to(getattr(torch, dtype)) for _ in range(2))
    return lambda: a @ b


def _product(product_of, dtype='float32'):
    """The best GFLOP/s of 20 products."""
    size, best = 2048, float('inf')
    product = product_of(size, dtype)
    for _ in range(20):
        start = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best / 1e9


CONTESTANTS = {
    'ours': ours,
    'ours_bare': bare,
    'upstream': upstream,
    'torch': _torch,
    'torch_compiled': lambda steps: _torch(steps, compiled=True),
    'product_tensorflow': lambda steps: _product(_tensorflow_product),
    'product_torch': lambda steps: _product(_torch_product),
}
IN_BFLOAT16 = {
    'ours': lambda steps: ours(steps, precision='mixed'),
    'ours_float32': ours,
    'torch': lambda steps: _torch(steps, in_bfloat16=True),
    'torch_channels_last': lambda steps: _torch(steps, in_bfloat16=True, is_channels_last=True),
    'product_tensorflow': lambda steps: _product(_tensorflow_product, 'bfloat16'),
    'product_torch': lambda steps: _product(_torch_product, 'bfloat16'),
}
