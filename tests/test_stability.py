"""Where similar programs fail: two classes, ten thousand steps."""

import numpy as np
import pytest

from gitloss import losses
from gitloss.backend import tf


@pytest.mark.parametrize('form', losses.FORMS)
def test_two_classes_ten_thousand_steps_stay_finite(form):
    """A linear embedding of two noisy classes under softmax + center + git loss, Adam at 0.01,
    fresh batches of 8. Softmax alone would drive the weights apart for ever; the center loss bounds
    them. At the end the classes are separated, and every loss was finite.
    """
    random = np.random.RandomState(0)
    labels = random.randint(0, 2, (10000, 8)).astype(np.int32)
    inputs = (random.randn(10000, 8, 4) + 4.0 * labels[:, :, None] - 2.0).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        x, y = tf.placeholder(tf.float32, [8, 4]), tf.placeholder(tf.int32, [8])
        weights = [
            tf.get_variable(
                name, shape, initializer=tf.glorot_uniform_initializer(seed=1), use_resource=True
            )
            for name, shape in (('embed', [4, 2]), ('classify', [2, 2]))
        ]
        embeddings = tf.matmul(x, weights[0])
        center_layer = losses.CenterLoss(2, form=form)
        center = center_layer([embeddings, y])
        git = losses.GitLoss(2, form=form, share=center_layer)([embeddings, y])
        logits = tf.matmul(embeddings, weights[1])
        total = (
            tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
            + center
            + git
        )
        optimizer = tf.train.AdamOptimizer(0.01)
        gradients = optimizer.compute_gradients(total, weights)
        with tf.control_dependencies([total] + [gradient for gradient, _ in gradients]):
            update = center_layer.update(embeddings, y)
        accuracy = tf.reduce_mean(
            tf.cast(tf.equal(tf.argmax(logits, 1, output_type=tf.int32), y), tf.float32)
        )
        train = optimizer.apply_gradients(gradients)
        session.run(tf.global_variables_initializer())
        step = session.make_callable([total, accuracy, train, update], feed_list=[x, y])
        seen = np.array([step(inputs[number], labels[number])[:2] for number in range(10000)])
        centers = session.run(center_layer.centers)
    assert np.all(np.isfinite(seen)) and np.all(np.isfinite(centers))
    assert seen[-1000:, 1].mean() > 0.97 and np.abs(centers).max() < 100
