"""Classes in shards: their ranges, the exact softmax over them, the sample of a step."""

import numpy as np
import pytest

from gitloss import heads
from gitloss.backend import tf
from gitloss.sharding import ClassRanges, ShardedCenterTable, ShardedClassifier
from gitloss.sharding.sampling import drawn, sampled_columns
from helpers import graph_session, run_graph

CLASSES, DIM, BATCH = 37, 8, 16


def alone(tensor, sum_gradients=False):
    """The gather of a single worker."""
    return tensor


def numpy_softmax(x, labels, kernel):
    """(loss, its gradients for x and kernel, predictions) in float64: loss = mean(log sum exp z -
    z_y), dz = (softmax - onehot) / batch.
    """
    x, kernel, rows = np.float64(x), np.float64(kernel), np.arange(len(x))
    logits = x.dot(kernel.T)
    shifted = logits - logits.max(axis=1, keepdims=True)
    shares = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    value = np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, labels])
    change = shares.copy()
    change[rows, labels] -= 1.0
    change /= len(x)
    return value, change.dot(kernel), change.T.dot(x), logits.argmax(axis=1)


def batch(seed=0):
    random = np.random.RandomState(seed)
    return (
        random.randn(BATCH, DIM).astype(np.float32),
        random.randint(0, CLASSES, BATCH).astype(np.int32),
        random.randn(CLASSES, DIM).astype(np.float32),
    )


def load(classifier, kernel, session):
    """Gives a classifier without biases, or with biases of 0, the rows of `kernel`."""
    session.run(tf.global_variables_initializer())
    start = 0
    for variable in classifier.shards:
        if variable.shape.rank == 2:
            stop = start + variable.shape.as_list()[0]
            variable.load(kernel[start:stop], session)
            start = stop


@pytest.mark.parametrize('rate', [1.0, 0.4, 0.1])
@pytest.mark.parametrize('workers, each', [(1, 1), (2, 1), (3, 1), (1, 3)])
def test_ranges_hold_every_class_once_and_no_divided_stratum(rate, workers, each):
    """37 classes, sampled at 0.4 in round(14.8) = 15 strata: j is of the classes 37 j // 15 on."""
    ranges = ClassRanges(CLASSES, workers, each, rate)
    assert ranges.strata == {1.0: 37, 0.4: 15, 0.1: 4}[rate]
    parts = [ranges.shard(number)[rank] for rank in range(workers) for number in range(each)]
    assert [part.first for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == CLASSES
    for part in parts:
        assert part.first == part.first_stratum * CLASSES // ranges.strata
    whole = ranges.whole()
    assert [part.first for part in whole] == [part.first for part in parts[::each]]


def test_more_shards_than_classes_are_refused():
    with pytest.raises(ValueError, match='--class_shards: expected at most 4 shards'):
        ClassRanges(CLASSES, 5, 1, 0.1)


@pytest.mark.parametrize('each', [1, 2, 5])
@pytest.mark.parametrize('factor', [1.0, 1000.0])
def test_the_softmax_over_shards_is_that_of_one_matrix(each, factor):
    """A factor of 1000 gives logits of some thousands: the loss is not cut where a probability is 0
    in float32. The largest absolute gradient is the scale of the errors.
    """
    x, labels, kernel = batch()
    kernel *= factor
    with graph_session() as session:
        classifier = ShardedClassifier(heads.head('softmax'), DIM, ClassRanges(CLASSES, each=each))
        points = tf.placeholder(tf.float32, x.shape)
        loss, predictions = classifier.softmax(points, tf.constant(labels), alone)
        gradients = tf.gradients(loss, [points, *classifier.shards])
        load(classifier, kernel, session)
        found = session.run([loss, predictions, gradients], {points: x})
        logits = session.run(classifier.logits(points), {points: x})
    value, of_x, of_kernel, predicted = numpy_softmax(x, labels, kernel)
    assert found[0] == pytest.approx(value, rel=1e-6)
    assert found[1].tolist() == predicted.tolist() == logits.argmax(axis=1).tolist()
    np.testing.assert_allclose(found[2][0], of_x, atol=2e-6 * np.abs(of_x).max())
    rows = np.concatenate([part for part in found[2][1:] if part.ndim == 2])
    np.testing.assert_allclose(rows, of_kernel, atol=2e-6 * np.abs(of_kernel).max())
    if factor > 1:
        assert value > 1000


def test_equal_logits_predict_the_first_class():
    """As argmax over one matrix does: all weights are 0, so all logits are."""
    x, labels, _ = batch()
    with graph_session() as session:
        classifier = ShardedClassifier(heads.head('softmax'), DIM, ClassRanges(CLASSES, each=3))
        _, predictions = classifier.softmax(tf.constant(x), tf.constant(labels), alone)
        session.run(tf.global_variables_initializer())
        assert session.run(predictions).tolist() == [0] * BATCH


def test_initial_weights_do_not_depend_on_the_shards():
    """Uniform within sqrt(6 / (dim + classes)), as Glorot's, also across blocks of 1024 classes."""
    found, classes = [], 2500
    for workers, each in ((1, 1), (1, 4), (3, 1)):
        rows = []
        for rank in range(workers):
            with graph_session() as session:
                ranges = ClassRanges(classes, workers, each)
                classifier = ShardedClassifier(heads.head('arcface'), DIM, ranges, rank)
                session.run(tf.global_variables_initializer())
                classifier.initialise(session)
                rows += session.run(classifier.shards)
        found.append(np.concatenate(rows))
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    limit = np.sqrt(6.0 / (DIM + classes))
    assert np.abs(found[0]).max() == pytest.approx(limit, rel=1e-3)
    assert np.abs(found[0].mean(axis=1)).max() < limit and abs(found[0].mean()) < 0.01 * limit
    assert len(np.unique(found[0], axis=0)) == classes


def test_a_stratum_draws_each_of_its_classes_as_often():
    """8 strata of 37 classes have 4 or 5 each: in 4000 steps a class is drawn 800 to 1000 times,
    with a standard deviation below sqrt(4000 / 4) < 32; five of them are allowed. The same step
    draws the same, another seed others.
    """
    ranges = ClassRanges(CLASSES, rate=8 / CLASSES)
    with graph_session() as session:
        step = tf.placeholder(tf.int64, [])
        classes, log_sizes = drawn(ranges, 1, step)
        others, _ = drawn(ranges, 2, step)
        draws = np.array([session.run(classes, {step: number}) for number in range(4000)])
        sizes = np.exp(session.run(log_sizes, {step: 0}))
        assert session.run(classes, {step: 7}).tolist() == draws[7].tolist()
        assert session.run(others, {step: 7}).tolist() != draws[7].tolist()
    firsts = np.arange(9) * CLASSES // 8
    np.testing.assert_allclose(sizes, np.diff(firsts), rtol=1e-6)
    assert (draws >= firsts[:-1]).all() and (draws < firsts[1:]).all()
    expected = np.repeat(4000 / sizes, np.diff(firsts))
    assert np.abs(np.bincount(draws.ravel(), minlength=CLASSES) - expected).max() < 160


@pytest.mark.parametrize('head', ['softmax', 'arcface'])
def test_a_sample_of_all_classes_is_the_softmax_over_them(head):
    """At a rate of 1 a stratum is a class, whose weight is 1: loss and gradients are those without
    a sample, in other columns.
    """
    x, labels, kernel = batch()
    with graph_session() as session:
        classifier = ShardedClassifier(heads.head(head), DIM, ClassRanges(CLASSES, each=2))
        points, found = tf.constant(x), []
        for step in (None, tf.constant(0)):
            loss, predictions = classifier.softmax(points, tf.constant(labels), alone, step)
            gradients = tf.gradients(loss, [points, *classifier.shards])
            found.append([loss, predictions, *map(tf.convert_to_tensor, gradients)])
        load(classifier, kernel, session)
        whole, sampled = session.run(found)
    for mine, its in zip(whole, sampled):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6 * np.abs(mine).max())


@pytest.mark.parametrize('workers', [1, 2])
def test_a_sample_has_the_classes_of_the_batch_once_and_no_bias(workers):
    """The columns: every class of the batch once, with weight 1, and every other drawn class with
    the size of its stratum. So the sum of the weights, averaged over the steps, is the number of
    classes: 37. Its standard deviation in one step is below 5.
    """
    _, labels, _ = batch()
    ranges = ClassRanges(CLASSES, workers, rate=8 / CLASSES)
    totals = []
    with graph_session() as session:
        step = tf.placeholder(tf.int64, [])
        sample = drawn(ranges, 1, step)
        parts = ranges.whole()
        columns = [sampled_columns(tf.constant(labels), part, *sample) for part in parts]
        for number in range(300):
            found, chosen = session.run([columns, sample[0]], {step: number})
            classes, weights, own = [], [], np.full(BATCH, -1)
            for part, (rows, places, offset) in zip(parts, found):
                classes += (rows + part.first).tolist()
                weights += np.exp(offset).tolist()
                own = np.where(places >= 0, (rows + part.first)[places], own)
            assert own.tolist() == labels.tolist()
            assert len(set(classes)) == len(classes)
            assert set(classes) == set(labels) | set(chosen)
            by_class = dict(zip(classes, weights))
            assert all(by_class[label] == 1.0 for label in set(labels))
            totals.append(sum(weights))
    assert np.mean(totals) == pytest.approx(CLASSES, abs=5 * 5 / np.sqrt(300))


def test_the_sum_over_a_sample_has_no_bias():
    """sum exp(z) over the sample, with the weights of the strata, averaged over 2000 steps, against
    that of all classes: mean(loss) is the mean of its logarithm. exp(loss + z_y) is the sum.
    """
    x, labels, kernel = batch()
    x, labels = x[:2] / 2, labels[:2]
    with graph_session() as session:
        ranges = ClassRanges(CLASSES, each=2, rate=0.4)
        classifier = ShardedClassifier(heads.head('softmax'), DIM, ranges)
        step = tf.placeholder(tf.int64, [])
        losses = [
            classifier.softmax(
                tf.constant(x[i : i + 1]), tf.constant(labels[i : i + 1]), alone, step
            )
            for i in (0, 1)
        ]
        load(classifier, kernel, session)
        found = np.array(
            [session.run([loss for loss, _ in losses], {step: number}) for number in range(2000)]
        )
    logits = np.float64(x).dot(np.float64(kernel).T)
    sums = np.exp(found + logits[[0, 1], labels])
    error = sums.std(axis=0) / np.sqrt(len(sums))
    assert (np.abs(sums.mean(axis=0) - np.exp(logits).sum(axis=1)) < 4 * error).all()
    assert (error < 0.02 * np.exp(logits).sum(axis=1)).all()


@pytest.mark.parametrize('has_unique', [True, False])
def test_rows_after_a_move(has_unique):
    """c_k - alpha sum_i (c_k - x_i) / (1 + n_k), alpha = 0.5, of all labels on each worker. Some of
    the 37 classes have several of the 16 samples.
    """
    x, labels, centers = batch()
    places = ClassRanges(CLASSES, 2).whole()
    table = ShardedCenterTable(CLASSES, places, 1, list, has_unique=has_unique)
    found = run_graph(table.rows_after, centers[labels], x, labels)
    moves = {k: np.mean(0.5 * (centers[k] - x)[labels == k], axis=0) for k in set(labels)}
    sizes = np.bincount(labels)[labels][:, None]
    moved = centers[labels] - [moves[k] for k in labels] * sizes / (1 + sizes)
    assert sizes.max() > 1
    np.testing.assert_allclose(found, moved, rtol=1e-5, atol=1e-6)
