"""The rule that moves the centers, and the layers that own or share their table."""

import numpy as np
import pytest

from gitloss import losses
from gitloss.backend import tf
from helpers import graph_session, relative_error, run_graph
from loss_reference import CASES, TOLERANCE, case, numpy_center, numpy_git, numpy_update


def test_center_rule_by_hand():
    """alpha 0.5. Class 0, center 1, samples 1 and 4: delta = ((1 - 1) + (1 - 4)) / (1 + 2) = -1,
    moves to 1.5.
    Class 1, center 2, sample 6: delta = (2 - 6) / 2 = -2, moves to 3. Class 2 has no sample and
    stays at 7.
    """
    x, labels, centers = (
        np.float32([[1], [6], [4]]),
        np.int32([0, 1, 0]),
        np.float32([[1], [2], [7]]),
    )
    moved = run_graph(lambda *inputs: losses.updated_centers(*inputs), centers, x, labels)
    np.testing.assert_allclose(moved, [[1.5], [3], [7]], rtol=1e-6)


@pytest.mark.parametrize('alpha', [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    'name', ['random', 'duplicates', 'all_one_label', 'batch_1', 'dim_512', 'far_from_origin']
)
def test_center_rule_equals_the_loop(name, alpha):
    x, labels, centers = CASES[name]()
    moved = run_graph(
        lambda *inputs: losses.updated_centers(*inputs, alpha=alpha), centers, x, labels
    )
    reference = numpy_update(centers, x, labels, alpha)
    # About an ulp per subtracted sample, relative to the coordinates, because the steps themselves
    # may cancel.
    assert np.abs(moved - reference).max() <= 3e-7 * np.abs(centers).max() * max(
        np.bincount(labels)
    )
    absent = np.setdiff1d(np.arange(len(centers)), labels)
    np.testing.assert_array_equal(moved[absent], centers[absent])


def test_mean_drift_by_hand():
    """Class 0 (two samples) moves by (3, 4), length 5; class 1 (one sample) by (1, 0): mean 3."""
    before, after = np.zeros([3, 2], np.float32), np.float32([[3, 4], [1, 0], [3, 4]])
    assert run_graph(
        lambda *inputs: losses.mean_drift(*inputs), before, after, np.int32([0, 1, 0])
    ) == pytest.approx(3.0, rel=1e-6)


def _batches(steps, batch=16, dim=3, classes=6, seed=5):
    random = np.random.RandomState(seed)
    for _ in range(steps):
        # The last class never occurs.
        yield (
            random.randn(batch, dim).astype(np.float32),
            random.randint(0, classes - 1, batch).astype(np.int32),
        )


@pytest.mark.parametrize('form', losses.FORMS)
def test_layers_move_the_centers_as_numpy_does_over_fifty_steps(form):
    """alpha 0.5. Classes 0-4 of 6 occur, with duplicates; class 5 does not change by a bit. Only
    the update op changes the centers.
    """
    with graph_session() as session:
        x, labels = tf.placeholder(tf.float32, [16, 3]), tf.placeholder(tf.int32, [16])
        center_layer = losses.CenterLoss(6, form=form)
        git_layer = losses.GitLoss(6, form=form, share=center_layer)
        terms = center_layer([x, labels]), git_layer([x, labels])
        update = center_layer.update(x, labels)
        session.run(tf.global_variables_initializer())
        table = center_layer.centers
        np.testing.assert_array_equal(session.run(table), np.zeros([6, 3]))
        start = np.random.RandomState(6).randn(6, 3).astype(np.float32)
        session.run(table.assign(start))
        expected, counts = start.astype(np.float64), np.zeros(6, np.int64)
        for images, numbers in _batches(50):
            counts += np.bincount(numbers, minlength=6)
            feed = {x: images, labels: numbers}
            before = session.run(table)
            values = session.run(terms, feed)
            assert (
                relative_error(values[0], numpy_center(images, numbers, before, form)[0])
                <= TOLERANCE
            )
            assert (
                relative_error(values[1], numpy_git(images, numbers, before, form)[0]) <= TOLERANCE
            )
            # Evaluating the losses does not update the centers.
            np.testing.assert_array_equal(session.run(table), before)
            session.run(update, feed)
            expected = numpy_update(expected, images, numbers, 0.5)
            after = session.run(table)
            np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
            assert after[5].tobytes() == start[5].tobytes()
        np.testing.assert_array_equal(session.run(center_layer.updates), counts)


def test_layer_update_equals_the_function():
    x, labels, centers = case(dim=3)

    def build(x, labels, centers):
        layer = losses.GitLoss(5, alpha=0.3)
        layer([x, labels])
        with tf.control_dependencies([layer.centers.assign(centers)]):
            update = layer.update(x, labels)
        with tf.control_dependencies([update]):
            return layer.centers.read_value(), losses.updated_centers(centers, x, labels, 0.3)

    np.testing.assert_allclose(*run_graph(build, x, labels, centers), rtol=1e-6, atol=1e-7)


def test_sharing_layer_has_no_table_of_its_own():
    with tf.Graph().as_default():
        x, labels = tf.zeros([8, 2]), tf.zeros([8], tf.int32)
        center_layer = losses.CenterLoss(4, name='center_loss')
        git_layer = losses.GitLoss(4, share=center_layer, name='git_loss')
        assert center_layer.centers is None
        center_layer([x, labels])
        git_layer([x, labels])
        assert all(variable.name.startswith('center_loss/') for variable in tf.global_variables())
        assert (
            git_layer.centers is center_layer.centers and git_layer.updates is center_layer.updates
        )
        assert not center_layer.trainable_weights and not git_layer.trainable_weights
        assert not tf.trainable_variables()


def test_config_round_trip():
    for layer in (losses.CenterLoss, losses.GitLoss):
        one = layer(7, form='pairwise', alpha=0.25, distance='cosine', name='some_name')
        two = layer.from_config(one.get_config())
        assert (two.num_classes, two.form, two.alpha, two.distance, two.name) == (
            7,
            'pairwise',
            0.25,
            'cosine',
            'some_name',
        )


def test_float64_embeddings_move_a_float32_table():
    """The table of a layer is float32 by default, whatever the inputs are."""
    x, labels, _ = case(dim=3)

    def build(x, labels):
        layer = losses.CenterLoss(5)
        layer([tf.cast(x, tf.float32), labels])
        with tf.control_dependencies([layer.update(x, labels)]):
            return layer.centers.read_value()

    moved = run_graph(build, x.astype(np.float64), labels)
    np.testing.assert_allclose(
        moved, numpy_update(np.zeros([5, 3]), x, labels, 0.5), rtol=1e-5, atol=1e-6
    )
