"""The objective of a margin head with center and git term, against float64 NumPy."""

import numpy as np
import pytest

from gitloss import heads
from gitloss.backend import tf
from gitloss.centers import CenterTable
from gitloss.sharding import ClassRanges, ShardedClassifier
from helpers import graph_session, relative_error
from loss_reference import numpy_center, numpy_git
from trainers.engine.objective import Objective
from trainers.options import Options
from trainers.workers.group import OneWorker

MARGIN, SCALE = 0.5, 8.0


def numpy_arcface(x, labels, kernel):
    """(value, gradient) of the mean cross-entropy over ArcFace logits z. With unit vectors u = x /
    |x| and w_k: z_k = s u.w_k, but s cos(t + m) at the label, where t is the angle. dL/dz =
    (softmax(z) - onehot) / batch; dz_y / d cos t = s sin(t + m) / sin t; a gradient g with respect
    to u is (g - (g.u) u) / |x| with respect to x.
    """
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    unit, weights = x / lengths, kernel / np.linalg.norm(kernel, axis=0)
    cosines, rows = unit.dot(weights), np.arange(len(x))
    angles = np.arccos(cosines[rows, labels])
    assert np.all(angles + MARGIN < np.pi)
    logits, slopes = SCALE * cosines, np.full_like(cosines, SCALE)
    logits[rows, labels] = SCALE * np.cos(angles + MARGIN)
    slopes[rows, labels] = SCALE * np.sin(angles + MARGIN) / np.sin(angles)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    value = -np.log(shares[rows, labels]).mean()
    shares[rows, labels] -= 1.0
    gradient = (shares / len(x) * slopes).dot(weights.T)
    return value, (gradient - np.sum(gradient * unit, axis=1, keepdims=True) * unit) / lengths


def classifier_of(head, dim, shards):
    """Of five classes, whole or in shards."""
    if shards:
        return ShardedClassifier(head, dim, ClassRanges(5, each=shards))
    return heads.Classifier(head, dim, 5, slope=0.0)


def load(classifier, kernel, session):
    """Gives a classifier the kernel [dim, classes], shards the rows of its transpose."""
    if isinstance(classifier, heads.Classifier):
        classifier.weights[0].load(kernel, session)
        return
    start = 0
    for shard in classifier.shards:
        stop = start + shard.shape.as_list()[0]
        shard.load(kernel.T[start:stop], session)
        start = stop


@pytest.mark.parametrize(
    'form, dim, shards',
    [('elementwise', 3, 0), ('pairwise', 3, 2), ('pairwise', 16, 0), ('elementwise', 16, 3)],
)
def test_the_gradient_of_arcface_with_git_is_the_sum_of_the_parts(form, dim, shards):
    """L = L_S + 0.5 L_C + 3 L_G, its value and its gradient with respect to the embeddings. In 16
    dimensions the git term uses matrix products. Five classes in two shards or three are uneven.
    """
    random = np.random.RandomState(1)
    labels = random.randint(0, 5, 12).astype(np.int32)
    centers = random.randn(5, dim).astype(np.float32)
    # Near the class weights, so that no angle reaches pi - margin.
    kernel = random.randn(dim, 5).astype(np.float32)
    points = (kernel.T[labels] + 0.5 * random.randn(12, dim)).astype(np.float32)
    options = Options(
        head='arcface', lambda_c=0.5, lambda_g=3.0, git_loss_form=form, embedding_dim=dim
    )
    with graph_session() as session:
        classifier = classifier_of(heads.head(options.head, MARGIN, SCALE), dim, shards)
        table = CenterTable(5, name='center_loss')
        table.build([None, dim])
        x, y = tf.placeholder(tf.float32, points.shape), tf.constant(labels)
        objective = Objective(options, classifier, table, OneWorker())
        softmax, _ = objective.softmax(x, y, y)
        terms = objective.terms(softmax, x, y, table.rows(y), objective.weights())
        session.run(tf.global_variables_initializer())
        load(classifier, kernel, session)
        table.centers.load(centers, session)
        gradient = tf.gradients(terms['loss'], x)[0]
        found, slope = session.run([terms, gradient], {x: points})
    parts = {
        'softmax_loss': numpy_arcface(points, labels, kernel),
        'center_loss': numpy_center(points, labels, centers, form),
        'git_loss': numpy_git(points, labels, centers, form),
    }
    weights = {'softmax_loss': 1.0, 'center_loss': 0.5, 'git_loss': 3.0}
    for name, (value, _) in parts.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    total, expected = (
        sum(weights[name] * parts[name][place] for name in weights) for place in (0, 1)
    )
    assert found['loss'] == pytest.approx(total, rel=1e-5)
    assert relative_error(slope, expected) <= 1e-5
