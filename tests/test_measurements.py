"""Center measurement and evaluation on points, with numbers derived by hand."""

import json

import numpy as np
import pytest

from callbacks import class_distances
from callbacks.centers import CenterMeasurement
from callbacks.evaluation import Evaluation, evaluate
from gitloss import metrics
from handles import FakeHandle
from helpers import Points


def test_center_measurement():
    """Class 0 at (0,0) and (0,2): mean (0,1), both samples 1 away. Class 1 at (4,1) twice: mean
    (4,1), 0 away. Class 2 has none. intra = mean(1, 0) = 0.5, inter = |(0,1) - (4,1)| = 4. Second
    measurement with class 1 at (8,1): inter 8, running (4 + 8) / 2 = 6."""
    points = np.array([[0, 0], [0, 2], [4, 1], [4, 1]], np.float32)
    split = Points(points, np.array([0, 0, 1, 1], np.int32))
    callback = CenterMeasurement(split)
    callback.handle = FakeHandle()
    logs = {}
    callback.on_epoch_end(1, logs)
    assert (
        logs['intra_cls_dist'],
        logs['inter_cls_dist'],
        logs['inter_cls_dist_running'],
        logs['inter_over_intra'],
    ) == (0.5, 4, 4, 8)
    assert logs['centers_moved'] == pytest.approx(2 / 3)  # of the counts 5, 1, 0
    # Without center_init nothing is set.
    np.testing.assert_array_equal(callback.handle.table, np.full((3, 2), 7.0))
    np.testing.assert_array_equal(callback.means, [[0, 1], [4, 1], [np.nan, np.nan]])
    points[2:, 0] = 8
    callback.on_epoch_end(2, logs)
    assert (logs['inter_cls_dist'], logs['inter_cls_dist_running']) == (8.0, 6.0)
    again = CenterMeasurement(split)
    again.load_state(json.loads(json.dumps(callback.state())))
    assert again.state() == [4.0, 8.0]


def test_more_embeddings_than_are_kept_are_computed_again(monkeypatch):
    """Two sweeps give the same numbers as one. 10 samples of 2 floats in batches of 4 take 80
    bytes; with a limit of 79 they are not kept.
    """
    split = Points(
        np.random.RandomState(0).randn(10, 2).astype(np.float32),
        (np.arange(10) % 3).astype(np.int32),
    )
    found = []
    for kept, sweeps in ((80, 1), (79, 2)):
        monkeypatch.setattr(class_distances, 'KEPT_BYTES', kept)
        callback, logs, made = CenterMeasurement(split), {}, []
        callback.handle = FakeHandle()
        sweep = callback.handle.sweep
        callback.handle.sweep = lambda split, sweep=sweep, made=made, **asked: (
            made.append(split) or sweep(split)
        )
        callback.on_epoch_end(1, logs)
        assert len(made) == sweeps
        found.append(logs)
    assert found[0] == found[1]


def test_centers_are_set_to_the_class_means():
    """Means (0,1) and (4,1); class 2 has no sample and keeps its center (7,7)."""
    split = Points(
        np.array([[0, 0], [0, 2], [4, 1], [4, 1]], np.float32), np.array([0, 0, 1, 1], np.int32)
    )
    expected = [[0, 1], [4, 1], [7, 7]]
    for callback, hook in (
        (CenterMeasurement(split, init='means'), lambda c: c.on_train_begin({})),
        (CenterMeasurement(split, reset=True), lambda c: c.on_epoch_end(1, {})),
    ):
        callback.handle = FakeHandle()
        hook(callback)
        np.testing.assert_array_equal(callback.handle.table, expected)
    resumed = CenterMeasurement(split, init='means')
    resumed.handle = FakeHandle()
    resumed.handle.step = 4  # a resumed run keeps the centers of its checkpoint
    resumed.on_train_begin({})
    np.testing.assert_array_equal(resumed.handle.table, np.full((3, 2), 7.0))


def test_cosine_centers_are_means_of_unit_vectors():
    """(3,4)/5 = (0.6,0.8) and (0,2)/2 = (0,1): mean (0.3, 0.9)."""
    split = Points(np.array([[3, 4], [0, 2]], np.float32), np.array([0, 0], np.int32))
    callback = CenterMeasurement(split, reset=True, distance='cosine')
    callback.handle = FakeHandle()
    callback.on_epoch_end(1, {})
    np.testing.assert_allclose(callback.handle.table, [[0.3, 0.9], [7, 7], [7, 7]])


def test_evaluation_counts_every_sample_once():
    """10 samples in batches of 4, 4 and 2, samples 1 and 9 predicted wrongly: accuracy 8 / 10.
    Batch losses 0, 4, 8: mean 4. Sample i lies at i on a line, in units of sqrt(8). Its class is
    i % 3: of class 0 (0, 3, 6, 9) the mean is 4.5 and the mean distance to it 3, of class 1 (1, 4,
    7) 4 and 2, of class 2 (2, 5, 8) 5 and 2. intra = 7 / 3, inter = (1/2 + 1/2 + 1) / 3 = 2 / 3.
    """
    split = Points(
        np.arange(20, dtype=np.float32).reshape(10, 2), (np.arange(10) % 3).astype(np.int32)
    )
    result, embeddings, predictions = evaluate(FakeHandle(wrong=(1, 9)), split, range(10))
    assert (result.pop('loss'), result.pop('acc')) == (4.0, 0.8)
    unit = np.sqrt(8.0)
    assert result == pytest.approx(
        {
            'intra_cls_dist': 7 / 3 * unit,
            'inter_cls_dist': 2 / 3 * unit,
            'inter_over_intra': 2 / 7,
        }
    )
    np.testing.assert_array_equal(embeddings, split.embeddings)
    np.testing.assert_array_equal(predictions, [0, -1, 2, 0, 1, 2, 0, 1, 2, -1])


@pytest.mark.parametrize('rows', [[0], [3, 4], [9], [1, 2, 5, 8], []])
def test_only_the_embeddings_that_are_asked_for_are_kept(rows):
    """Wherever they are in batches of 4; the metrics remain those of all samples."""
    split = Points(
        np.arange(20, dtype=np.float32).reshape(10, 2), (np.arange(10) % 3).astype(np.int32)
    )
    result, embeddings, predictions = evaluate(FakeHandle(wrong=(1, 9)), split, rows)
    assert (
        (result['loss'], result['acc']) == (4.0, 0.8)
        and len(predictions) == 10
        and embeddings.shape == (len(rows), 2)
    )
    np.testing.assert_array_equal(embeddings, split.embeddings[rows])


def test_memory_for_pictures_is_bounded_and_a_sorted_set_shows_all_its_classes():
    """5000 samples sorted by 10 classes, 200 of each kept; 1000 classes, the means of 200."""
    labels = np.repeat(np.arange(10, dtype=np.int32), 500)
    callback = Evaluation(
        Points(np.zeros((5000, 2), np.float32), labels),
        final_source=Points(np.zeros((4, 2), np.float32), labels[:4]),
    )
    callback.handle = FakeHandle(wrong=range(0, 5000, 4))
    logs = {}
    callback.on_epoch_end(1, logs)
    callback.on_train_end(logs)
    assert (logs['valid_acc'], logs['test_acc']) == (0.75, 0.75) and len(
        callback.all_predictions
    ) == 5000
    assert (
        callback.embeddings.shape == (2000, 2)
        and np.bincount(callback.labels).tolist() == [200] * 10
    )
    np.testing.assert_array_equal(callback.labels, labels[callback.numbers])
    np.testing.assert_array_equal(callback.predictions, callback.all_predictions[callback.numbers])
    means = CenterMeasurement(
        Points(np.eye(1000, dtype=np.float32), np.arange(1000, dtype=np.int32))
    )
    means.handle = FakeHandle()
    means.handle.num_classes, means.handle.options = 1000, {'embedding_dim': 1000}
    means.on_epoch_end(1, logs)
    assert (
        means.means.shape == (200, 1000)
        and means.means.argmax(axis=1).tolist() == metrics.evenly_spaced(1000, 200).tolist()
    )


def test_evaluation_logs_its_names():
    split = Points(np.zeros((4, 2), np.float32), np.zeros(4, np.int32))
    callback = Evaluation(split, final_source=split)
    callback.handle = FakeHandle(wrong=(0,))
    logs = {}
    callback.on_epoch_end(1, logs)
    # One class, all of it at one place.
    assert logs == {
        'valid_loss': 0.0,
        'valid_acc': 0.75,
        'valid_intra_cls_dist': 0.0,
        'valid_inter_cls_dist': 0.0,
    }
    callback.on_train_end(logs)
    assert (logs['test_acc'], logs['test_images']) == (0.75, 4)
    assert not {'test_eer', 'test_auc'} & set(logs)  # pairs of two classes there are none


def test_embeddings_that_are_not_kept_are_not_measured(monkeypatch):
    """80 bytes of embeddings; the losses and the accuracy need none of them."""
    split = Points(np.zeros((10, 2), np.float32), (np.arange(10) % 3).astype(np.int32))
    monkeypatch.setattr(class_distances, 'KEPT_BYTES', 79)
    assert set(evaluate(FakeHandle(), split).result) == {'loss', 'acc'}


@pytest.mark.parametrize('similarity, eer, auc', [('euclidean', 0.5, 6 / 8), ('cosine', 0.0, 1.0)])
def test_test_images_are_verified_at_the_end(similarity, eer, auc):
    """Points (1,0), (5,0) of class 0 and (0,1), (0,2) of class 1. Distances of genuine pairs 4, 1;
    of impostor pairs sqrt(2), sqrt(5), sqrt(26), sqrt(29): 1 is below all four, 4 below two of
    them, so that AUC = (4 + 2) / 8, and with a threshold between sqrt(2) and 4 half of each kind
    are wrong. The directions of a class are equal: no pair is wrong by cosine.
    """
    points = np.array([[1, 0], [5, 0], [0, 1], [0, 2]], np.float32)
    split = Points(points, np.array([0, 0, 1, 1], np.int32))
    callback, logs = Evaluation(None, final_source=split), {}
    callback.handle = FakeHandle()
    callback.handle.options = {'embedding_dim': 2, 'similarity': similarity}
    callback.on_train_end(logs)
    assert (logs['test_eer'], logs['test_auc']) == pytest.approx((eer, auc))
    declared = {metric.name: metric for metric in callback.metrics}
    assert declared['test_eer'].higher_is_better is None  # no choice depends on the test set


def test_points_without_a_direction_are_not_verified_by_cosine(caplog):
    split = Points(np.zeros((4, 2), np.float32), np.array([0, 0, 1, 1], np.int32))
    callback, logs = Evaluation(None, final_source=split), {}
    callback.handle = FakeHandle()
    callback.handle.options = {'embedding_dim': 2, 'similarity': 'cosine'}
    callback.on_train_end(logs)
    assert 'test_eer' not in logs and logs['test_acc'] == 1.0
