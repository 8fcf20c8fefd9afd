"""Callbacks without a model: hooks called with made-up values."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from callbacks import centers
from callbacks.base import Callback, RunHandle
from callbacks.centers import CenterMeasurement
from callbacks.evaluation import Evaluation, evaluate
from callbacks.history import History
from callbacks.list import CallbackList
from gitloss import metrics
from gitloss.backend import tf
from gitloss.errors import Diverged, HookError
from gitloss.metrics import declaration
from helpers import Points

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Recorder(Callback):
    def __init__(self, calls, name, failing=()):
        self.calls, self.name, self.failing = calls, name, failing

    def _note(self, hook):
        self.calls.append((self.name, hook))
        if hook in self.failing:
            raise RuntimeError(f'{self.name} broke')

    def build(self):
        self._note('build')

    def on_train_begin(self, logs=None):
        self._note('on_train_begin')

    def on_train_end(self, logs=None):
        self._note('on_train_end')

    def close(self):
        self._note('close')


class FakeHandle(RunHandle):
    """Sweeps Points; predictions equal the labels except for the indices in `wrong`."""

    num_classes, batch_size, steps, every = 3, 4, 10, 5
    metrics = declaration.by_name(
        [declaration.accuracy('valid'), declaration.loss('train'), declaration.loss('valid')]
    )

    def __init__(self, run_dir='', wrong=()):
        self.run_dir, self.wrong, self.table = str(run_dir), wrong, np.full((3, 2), 7.0)

    step = 0

    def center_updates(self):
        return np.array([5, 1, 0])

    def centers(self):
        return self.table

    def set_centers(self, values):
        self.table = np.array(values)

    def sweep(self, split, with_losses=False):
        for start in range(0, len(split.labels), 4):
            labels = split.labels[start : start + 4]
            predictions = np.array(
                [label if start + i not in self.wrong else -1 for i, label in enumerate(labels)]
            )
            yield (
                split.embeddings[start : start + 4],
                predictions,
                labels,
                {'loss': float(start)} if with_losses else {},
            )

    def throughput(self):
        return {'images_per_sec': 100.0, 'sec_per_step': 0.04}


def test_order_is_the_order_of_the_list():
    calls = []
    callbacks = CallbackList([Recorder(calls, 'a'), Recorder(calls, 'b')])
    callbacks.build(FakeHandle())
    callbacks.run('on_train_begin', {})
    callbacks.end({})
    callbacks.close()
    assert calls == [
        (name, hook)
        for hook in ('build', 'on_train_begin', 'on_train_end', 'close')
        for name in 'ab'
    ]
    assert callbacks.failures == []


def test_every_finalizer_runs_even_if_others_failed():
    calls = []
    callbacks = CallbackList(
        [Recorder(calls, 'a', ('on_train_end', 'close')), Recorder(calls, 'b')]
    )
    callbacks.build(FakeHandle())
    callbacks.end({})
    callbacks.close()
    assert calls[2:] == [
        ('a', 'on_train_end'),
        ('b', 'on_train_end'),
        ('a', 'close'),
        ('b', 'close'),
    ]
    assert callbacks.failures == ['Recorder.on_train_end: a broke', 'Recorder.close: a broke']


def test_only_what_was_built_is_closed():
    calls = []
    callbacks = CallbackList(
        [Recorder(calls, 'a'), Recorder(calls, 'b', ('build',)), Recorder(calls, 'c')]
    )
    with pytest.raises(RuntimeError):
        callbacks.build(FakeHandle())
    callbacks.close()
    assert calls[2:] == [('a', 'close'), ('b', 'close')]


def test_two_callbacks_may_not_fetch_under_one_name():
    class Fetching(Callback):
        def fetches(self, step):
            return {'norm': step}

    assert CallbackList([Fetching()]).fetches(3) == {'norm': 3}
    for callbacks, own in (([Fetching(), Fetching()], {}), ([Fetching()], {'norm': 0})):
        with pytest.raises(
            ValueError, match='expected names that no other .* Received: norm from Fetching'
        ):
            CallbackList(callbacks).fetches(3, own)


class Mistaken(Callback):
    def on_epoch_end(self, epoch, logs=None):
        return logs['inter']

    def on_train_end(self, logs=None):
        return self.nothing


def test_a_mistake_in_a_hook_names_callback_hook_and_line():
    line = Mistaken.on_epoch_end.__code__.co_firstlineno + 1
    with pytest.raises(
        HookError,
        match=rf"^Mistaken.on_epoch_end: KeyError: 'inter' \(test_callbacks.py, line {line}\)$",
    ) as caught:
        CallbackList([Mistaken()]).run('on_epoch_end', 1, {})
    assert isinstance(caught.value.__cause__, KeyError)  # --tf_logs shows it
    callbacks = CallbackList([Mistaken()])
    callbacks.end({})
    assert callbacks.failures == [
        "Mistaken.on_train_end: AttributeError: 'Mistaken' object has no attribute 'nothing' "
        f'(test_callbacks.py, line {Mistaken.on_train_end.__code__.co_firstlineno + 1})'
    ]


@pytest.mark.parametrize(
    'error',
    [
        Diverged('a'),
        ValueError('a'),
        OSError('a'),
        RuntimeError('a'),
        MemoryError('a'),
        KeyboardInterrupt('a'),
        tf.errors.AbortedError(None, None, 'a'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_with_a_meaning_keep_it(error):
    class Raising(Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise error

    with pytest.raises(type(error)) as caught:
        CallbackList([Raising()]).run('on_epoch_end', 1, {})
    assert caught.value is error


def test_numbers_of_numpy_become_numbers_of_python():
    class Scoring(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs.update(
                single=np.float32(0.5), count=np.int64(3), flag=np.bool_(True), array=np.array(2.5)
            )

    logs = {}
    CallbackList([Scoring()]).run('on_epoch_end', 1, logs)
    assert [(name, type(value)) for name, value in logs.items()] == [
        ('single', float),
        ('count', int),
        ('flag', bool),
        ('array', float),
    ]
    assert (
        logs
        == json.loads(json.dumps(logs))
        == {'single': 0.5, 'count': 3, 'flag': True, 'array': 2.5}
    )


def test_what_no_json_holds_names_who_logged_it():
    class Listing(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs['table'] = np.zeros(3)

    with pytest.raises(
        HookError,
        match='^Listing.on_epoch_end: expected numbers or text in the logs. Received: table, of '
        'type ndarray$',
    ):
        CallbackList([Listing(), History()]).run('on_epoch_end', 1, {})


def test_states_of_two_callbacks_of_one_class_stay_apart():
    one, two = History(), History()
    one.rows, two.rows = [{'step': 1}], [{'step': 2}]
    states = json.loads(json.dumps(CallbackList([one, two]).state()))
    again = CallbackList([History(), History()])
    again.load_state(states, 'ckpt/step-00000005')
    assert [callback.rows for callback in again.callbacks] == [[{'step': 1}], [{'step': 2}]]


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
        monkeypatch.setattr(centers, 'KEPT_BYTES', kept)
        callback, logs, made = CenterMeasurement(split), {}, []
        callback.handle = FakeHandle()
        sweep = callback.handle.sweep
        callback.handle.sweep = lambda split, sweep=sweep, made=made: (
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
    Batch losses 0, 4, 8: mean 4.
    """
    split = Points(
        np.arange(20, dtype=np.float32).reshape(10, 2), (np.arange(10) % 3).astype(np.int32)
    )
    result, embeddings, predictions = evaluate(FakeHandle(wrong=(1, 9)), split, range(10))
    assert result == {'loss': 4.0, 'acc': 0.8}
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
        result == {'loss': 4.0, 'acc': 0.8}
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
    means.handle.num_classes = 1000
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
    assert logs == {'valid_loss': 0.0, 'valid_acc': 0.75}
    callback.on_train_end(logs)
    assert (logs['test_acc'], logs['test_images']) == (0.75, 4)


def test_history_and_results(tmp_path):
    """The best of 0.5, 0.9, 0.7 is the second measurement; `final` is the last one with what
    on_train_end added.
    """
    callback = History({'device': 'cpu'})
    callback.handle = FakeHandle(tmp_path)
    callback.on_train_begin({})
    for epoch, accuracy in enumerate((0.5, 0.9, 0.7), 1):
        logs = {'extra': 1.0, 'valid_acc': accuracy, 'step': 5 * epoch, 'train_loss': 1.0 / epoch}
        callback.on_epoch_end(epoch, logs)
    logs['test_acc'] = 0.6
    callback.on_train_end(logs)
    rows = [json.loads(line) for line in (tmp_path / 'history.jsonl').read_text().splitlines()]
    assert [row['step'] for row in rows] == [5, 10, 15]
    assert list(rows[0]) == ['step', 'train_loss', 'valid_acc', 'extra']
    results = json.loads((tmp_path / 'results.json').read_text())
    assert (
        results['device'],
        results['best']['step'],
        results['final']['test_acc'],
        results['best_by'],
    ) == ('cpu', 10, 0.6, 'valid_acc')
    assert results['throughput'] == {'images_per_sec': 100.0, 'sec_per_step': 0.04}


def test_history_starts_from_the_rows_of_its_state(tmp_path):
    (tmp_path / 'history.jsonl').write_text('{"step": 5}\n{"step": 10}\n{"step": 15}\n')
    callback = History()
    callback.handle = FakeHandle(tmp_path)
    callback.load_state({'rows': [{'step': 5}, {'step': 10}], 'seconds': 30.0})
    callback.on_train_begin({})
    callback.on_epoch_end(3, {'step': 15})
    assert [
        json.loads(line)['step'] for line in (tmp_path / 'history.jsonl').read_text().splitlines()
    ] == [5, 10, 15]


def test_a_line_for_a_person_is_out_at_once_also_into_a_file():
    """`os._exit`, like a kill, drops what is not flushed: before Python 3.9 that would be all
    lines, except on a terminal.
    """
    code = (
        'import logging, os; from callbacks.progress import ConsoleHandler, log; '
        'log.addHandler(ConsoleHandler()); '
        'log.setLevel(logging.INFO); log.info("step 1"); os._exit(0)'
    )
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'}
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=dict(environment, PYTHONPATH=ROOT),
        stderr=subprocess.PIPE,
        timeout=120,
    )
    assert done.stderr.decode().splitlines() == ['step 1']


@pytest.mark.parametrize('running, expected', [(1, 40), (100, 100)])
def test_the_time_of_a_run_goes_on_at_a_resume_and_never_back(running, expected):
    """A checkpoint saved after 40 s: the process that continues it has just started; one that rolls
    back to it has run for 100 s.
    """
    history = History(started=time.monotonic() - running)
    history.load_state({'rows': [], 'seconds': 40.0})
    assert expected <= history.state()['seconds'] < expected + 20
