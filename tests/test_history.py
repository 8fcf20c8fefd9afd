"""history.jsonl and results.json, and the time of a run that goes on."""

import json
import time

import pytest

from callbacks.history import History
from handles import FakeHandle


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


@pytest.mark.parametrize('running, expected', [(1, 40), (100, 100)])
def test_the_time_of_a_run_goes_on_at_a_resume_and_never_back(running, expected):
    """A checkpoint saved after 40 s: the process that continues it has just started; one that rolls
    back to it has run for 100 s.
    """
    history = History(started=time.monotonic() - running)
    history.load_state({'rows': [], 'seconds': 40.0})
    assert expected <= history.state()['seconds'] < expected + 20
