"""Centers that are read and set a piece at a time, and sweeps for class means, in real runs."""

import numpy as np
import pytest

import crew
import survival
import toys
from callbacks import class_distances
from callbacks.base import Callback
from callbacks.centers import CenterMeasurement
from gitloss import data
from trainers import devices
from trainers.engine import graph
from trainers.engine.trainer import Trainer


class Moving(Callback):
    """Sets centers before the first step and reads them; sweeps with and without predictions."""

    def __init__(self, source):
        self.source = source

    def on_train_begin(self, logs=None):
        handle = self.handle
        self.before = handle.center_rows(np.arange(4)), handle.centers_moved()
        handle.set_centers(np.array([3, 0, 2]), np.array([[3.0, 1], [0, 1], [2, 1]]))
        handle.set_centers(np.empty(0, np.int64), np.empty((0, 2)))
        self.after = handle.center_rows([0, 1, 2, 3]), handle.centers_moved()
        self.one, self.none = handle.center_rows([3]), handle.center_rows([])
        self.swept = [
            list(handle.sweep(self.source, with_predictions=asked)) for asked in (True, False)
        ]


@pytest.mark.parametrize('piece_bytes', [1 << 20, 16, 1])
def test_centers_are_set_and_read_by_their_classes(tmp_path, monkeypatch, piece_bytes):
    """Rows of 2 float32 in pieces of all 4 classes, of 2 or of 1: three rows are set, the other
    center stays 0. Setting counts no sample. Embeddings are the same without predictions.
    """
    monkeypatch.setattr(graph, 'PIECE_BYTES', piece_bytes)
    settings = toys.options(tmp_path, steps=1, evaluate=False)
    dataset = data.load('mnist', settings.data_folder)
    moving = Moving(dataset.test)
    Trainer(settings, dataset, [moving], devices.choose(settings)).fit()
    np.testing.assert_array_equal(moving.before[0], np.zeros((4, 2)))
    np.testing.assert_array_equal(moving.after[0], [[0, 1], [0, 0], [2, 1], [3, 1]])
    assert moving.before[1] == moving.after[1] == 0
    assert moving.one.tolist() == [[3, 1]] and moving.none.shape == (0, 2)
    for with_them, without in zip(*moving.swept):
        np.testing.assert_array_equal(with_them[0], without[0])
        np.testing.assert_array_equal(with_them[2], without[2])
        assert len(with_them[1]) == len(with_them[0]) and len(without[1]) == 0


def rows_of(settings, **measuring):
    """The history of a run with CenterMeasurement(..., **measuring) alone, and its centers."""
    dataset = data.load('mnist', settings.data_folder)

    class Rows(Callback):
        def __init__(self):
            self.rows = []

        def on_epoch_end(self, epoch, logs=None):
            self.rows.append(dict(logs))
            self.centers = self.handle.center_rows(np.arange(4))

    rows = Rows()
    callbacks = [CenterMeasurement(dataset.train, **measuring), rows]
    Trainer(settings, dataset, callbacks, devices.choose(settings)).fit()
    return rows


@pytest.mark.parametrize('distance', ['euclidean', 'cosine'])
def test_a_run_without_a_table_measures_the_same(tmp_path, monkeypatch, distance):
    """Centers are set to the class means before the first step and at each of three measurements.
    Means in float64 differ in the last bits, which their rounding to float32 may show.
    """
    settings = toys.options(tmp_path, distance=distance)
    measuring = {'init': 'means', 'reset': True, 'distance': distance}
    table = rows_of(settings, **measuring)
    monkeypatch.setattr(class_distances, 'TABLE_BYTES', 0)
    order = rows_of(toys.options(tmp_path, resume='never', distance=distance), **measuring)
    assert len(table.rows) == 3 and np.abs(table.centers).min() > 0
    np.testing.assert_allclose(order.centers, table.centers, rtol=1e-5, atol=1e-7)
    for one, other in zip(table.rows, order.rows):
        for name in ('intra_cls_dist', 'inter_cls_dist', 'train_loss', 'centers_moved'):
            assert one[name] == pytest.approx(other[name], rel=1e-5)


def test_several_workers_sweep_in_the_order_of_classes(tmp_path, monkeypatch):
    """Two workers in threads, each with whole results: the centers before the first step and the
    first measurement are those of one worker with a table.
    """
    one = crew.settings_of(tmp_path, 'one', center_init='means')
    crew.trainer_of(one).fit()
    monkeypatch.setattr(class_distances, 'TABLE_BYTES', 0)
    two = crew.settings_of(tmp_path, 'two', center_init='means')
    crew.together(2, lambda group, _: crew.trainer_of(two, group).fit())
    row, other = survival.history(one.run_dir)[0], survival.history(two.run_dir)[0]
    for name in ('intra_cls_dist', 'inter_cls_dist', 'inter_over_intra', 'train_center_loss'):
        assert row[name] == pytest.approx(other[name], rel=1e-3)


def test_a_run_with_a_sample_of_its_classes_logs_errors(tmp_path):
    """Of 4 classes with 25 or so images at most 80 may be swept: three classes."""
    rows = rows_of(toys.options(tmp_path, measure_samples=80), samples=80).rows
    assert all(row[f'{name}_cls_dist_error'] > 0 for row in rows for name in ('intra', 'inter'))
