"""A naive Git loss, for comparison: fed batches, the pair term by broadcasting, gradients by
TensorFlow, centers in NumPy, TensorFlow's own kernels and threads, no oneDNN.

As a program it prints, as JSON, the losses of a training on MNIST for each optimizer, and those of
the same training with every initial weight moved by one unit in the last place:

    python tests/plain.py BATCH OPTIMIZER=RATE,STEPS ...
"""

import json
import os
import sys

os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np  # noqa: E402

from gitloss import data, heads  # noqa: E402
from gitloss import model as models  # noqa: E402
from gitloss.backend import tf  # noqa: E402
from trainers.options import Options  # noqa: E402

OPTIMIZERS = {
    'adam': lambda rate: tf.train.AdamOptimizer(rate, epsilon=1e-8),
    'momentum': lambda rate: tf.train.MomentumOptimizer(rate, 0.9),
}


def losses(dataset, optimizer, rate, steps, batch, moved):
    with tf.Graph().as_default(), tf.Session() as session:
        net = models.build(dataset.spec, 'mnist_cnn', 2)
        classifier = heads.Classifier(heads.head('softmax'), 2, 10, slope=0.0)
        labels, rows = tf.placeholder(tf.int32, [batch]), tf.placeholder(tf.float32, [batch, 2])
        embeddings = net.output
        logits = classifier.logits(embeddings)
        weights = net.trainable_weights + classifier.weights
        differences = (embeddings[:, None] - rows[None, :]) * (1.0 - tf.eye(batch))[:, :, None]
        total = (
            tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
            + tf.reduce_mean(tf.square(embeddings - rows))
            + tf.reduce_mean(1.0 / (1.0 + tf.square(differences)))
        )
        train = OPTIMIZERS[optimizer](rate).minimize(total, var_list=weights)
        session.run(tf.global_variables_initializer())
        if moved:
            for weight in weights:
                weight.load(np.nextafter(session.run(weight), np.float32(np.inf)), session)
        centers, seen, stream = (
            np.zeros((10, 2), np.float32),
            [],
            data.BatchStream(dataset.train, batch, 1),
        )
        for step in range(steps):
            images, classes = stream.batch(step)
            feeds = {net.input: images.astype(np.float32), labels: classes, rows: centers[classes]}
            _, loss, found = session.run([train, total, embeddings], feeds)
            seen.append(float(loss))
            moves = (
                0.5
                * (centers[classes] - found)
                / (1 + np.bincount(classes, minlength=10)[classes])[:, None]
            )
            np.subtract.at(centers, classes, moves.astype(np.float32))
        return seen


if __name__ == '__main__':
    dataset = data.load('mnist', Options().data_folder)
    batch, found = int(sys.argv[1]), {}
    for name, settings in (argument.split('=') for argument in sys.argv[2:]):
        rate, steps = settings.split(',')
        found[name] = [
            losses(dataset, name, float(rate), int(steps), batch, moved) for moved in (False, True)
        ]
    print(json.dumps(found))
