"""curves.csv: means and deviations over seeds of every measurement of a sweep's runs."""

import csv
import json

import pytest

from cells import cell
from trainers.sweeping import tables


def _run(tmp_path, weight, seed, rows, status='finished'):
    folder = tmp_path / f'{weight}-{seed}'
    folder.mkdir()
    (folder / 'history.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    settings = {'lambda_g': weight, 'seed': seed}
    return cell(settings, {'test_acc': 0.5}, status, folder=str(folder))


def _curves(tmp_path, cells):
    """{(lambda_g, step, metric): (mean, std, count)} of curves.csv, as texts."""
    tables.write_tables(str(tmp_path), cells)
    rows = list(csv.reader((tmp_path / 'curves.csv').read_text().splitlines()))
    assert rows[0] == ['lambda_g', 'step', 'metric', 'mean', 'std', 'count']
    return {tuple(row[:3]): tuple(row[3:]) for row in rows[1:]}


def test_means_and_deviations_at_each_step(tmp_path):
    """0.25 and 0.75: mean 0.5, deviation sqrt(0.125) = 0.35355. Times are no result; what is NaN
    or of a run that did not finish counts nowhere.
    """
    one, two = ({'step': 10, 'seconds': 3.0, 'gradient_git': value} for value in (0.25, 0.75))
    later = {'step': 100, 'gradient_git': float('nan'), 'valid_acc': 1.0}
    found = _curves(
        tmp_path,
        [
            _run(tmp_path, 1.0, 1, [one, later]),
            _run(tmp_path, 1.0, 2, [two, {'step': 100, 'valid_acc': None}]),
            _run(tmp_path, 1.0, 3, [one], status='unfinished'),
            _run(tmp_path, 0.5, 1, [one]),
        ],
    )
    mean, std, count = found.pop(('1.0', '10', 'gradient_git'))
    assert (float(mean), float(std), count) == (0.5, pytest.approx(0.125**0.5), '2')
    assert found == {
        ('0.5', '10', 'gradient_git'): ('0.25', '', '1'),
        ('1.0', '100', 'valid_acc'): ('1.0', '', '1'),
    }


@pytest.mark.parametrize('content', ['{"step": 1', '[1]\n', '{"loss": 1}\n', '{"step": "1"}\n'])
def test_a_history_that_cannot_be_read_counts_nowhere(content, tmp_path):
    damaged = _run(tmp_path, 1.0, 2, [])
    (tmp_path / '1.0-2' / 'history.jsonl').write_text(content)
    gone = cell({'lambda_g': 1.0, 'seed': 3}, {'test_acc': 0.5}, folder=str(tmp_path / 'gone'))
    cells = [_run(tmp_path, 1.0, 1, [{'step': 1, 'loss': 2.0}]), damaged, gone]
    assert _curves(tmp_path, cells) == {('1.0', '1', 'loss'): ('2.0', '', '1')}
