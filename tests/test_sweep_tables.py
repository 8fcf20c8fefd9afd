"""The tables of a sweep: means over seeds, comparisons with a baseline, and what is missing."""

import csv
import math
import os
import random

import pytest

from cells import cell, three_settings
from gitloss.metrics import statistics
from trainers.sweeping import comparing, latex, results, tables

BASELINE = {'lambda_c': 0.0}


def _written(tmp_path, cells, *arguments):
    """{name: content} of the files."""
    found = {}
    for path in tables.write_tables(str(tmp_path), cells, *arguments):
        with open(path, encoding='utf-8', newline='') as file:
            found[os.path.basename(path)] = file.read()
    assert sorted(os.listdir(str(tmp_path))) == sorted(found)
    return found


def test_comparisons():
    """Seeds 1, 2, 3 of lambda_c 1 are 0.01, 0.02, 0.03 above the baseline: p = 1 - sqrt(12 / 14) =
    0.0742, see test_statistics.py. Those of lambda_c 2 are 0.05, 0.0501, 0.0499 above: mean 0.05,
    std 0.0001, t = 0.05 / (0.0001 / sqrt(3)) = 866, and p = 1 - t / sqrt(2 + t^2), nearly
    1 / t^2 = 1.33e-6. Holm doubles the smaller one.
    """
    (column,) = comparing.table(three_settings(), BASELINE).columns
    assert [found.mean for found in column.summaries] == pytest.approx([0.92, 0.94, 0.97])
    assert [found.std for found in column.summaries] == pytest.approx([0.02, 0.03, 0.01995], 1e-4)
    none, one, two = column.comparisons
    assert none is None
    assert (one.difference.mean, one.difference.p) == pytest.approx((0.02, 1 - math.sqrt(12 / 14)))
    assert one.adjusted == one.difference.p and one.verdict == ''
    assert two.difference.p == pytest.approx(1 / (3 * 500.0**2), 1e-3)
    assert two.adjusted == 2 * two.difference.p and two.verdict == 'better'


def test_the_page(tmp_path):
    page = _written(tmp_path, three_settings(), BASELINE)['summary.md']
    for line in (
        'Cells: 9 finished.',
        '| lambda_c | seeds | test accuracy ↑ |',
        '| 1 | 3 | 0.9400 ± 0.0300 |',
        '## Differences to the baseline lambda_c=0',
        '### test accuracy ↑',
        '| 1 | 3 | +0.0200 ± 0.0100 | -0.0048 to +0.0448 | 0.074 | 0.074 |  |',
        '| 2 | 3 | +0.0500 ± 0.0001 | +0.0498 to +0.0502 | &lt; 0.001 | &lt; 0.001 | better |',
        '- the same in all finished cells: commit abc, device cpu, python 3.11.7',
    ):
        assert line in page.splitlines()
    assert 'Holm' in page and '(2 at most)' in page and 'Cells without results' not in page


def test_the_order_in_which_cells_finish_changes_no_byte(tmp_path):
    cells = three_settings(git_loss_form='pairwise') + three_settings(git_loss_form='elementwise')
    cells[3] = cell(cells[3].settings, None, 'failed', 'NaN')
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    first = _written(tmp_path / 'one', cells, BASELINE)
    random.Random(1).shuffle(cells)
    assert _written(tmp_path / 'two', cells, BASELINE) == first


def test_rows_are_in_the_order_of_numbers():
    """2 is before 10; texts come last."""
    cells = [cell({'margin': value, 'seed': 1}, {'test_acc': 1.0}) for value in ('x', 10, 0.5, 2)]
    groups = results.grouped(cells)
    assert [group.settings['margin'] for group in groups] == [0.5, 2, 10, 'x']


def test_seeds_that_both_have_are_compared(tmp_path):
    """lambda_c 1 lacks seed 2, the baseline has no seed 4: two pairs, differences 0.01 and 0.03."""
    cells = three_settings()
    cells[4] = cell(cells[4].settings, None, 'unfinished')
    cells.append(cell({'lambda_c': 1.0, 'seed': 4}, {'test_acc': 0.5}))
    (column,) = comparing.table(cells, BASELINE).columns
    difference = column.comparisons[1].difference
    assert (difference.count, difference.mean) == (2, pytest.approx(0.02))
    assert column.summaries[1].count == 3
    assert '| 1 | 3 of 4 | 0.7933 ± 0.2558 |' in _written(tmp_path, cells)['summary.md']


def test_a_baseline_of_some_flags_is_one_for_each_value_of_the_others():
    """The elementwise settings are 0.1 better, in both lambda_c: no difference of lambda_c."""
    cells = [
        cell({'lambda_c': weight, 'git_loss_form': form, 'seed': seed}, {'test_acc': value})
        for weight in (0.0, 1.0)
        for form, value in (('elementwise', 0.8), ('pairwise', 0.7))
        for seed in (1, 2)
    ]
    (column,) = comparing.table(cells, BASELINE).columns
    assert [one and one.difference.mean for one in column.comparisons] == [None, None, 0.0, 0.0]
    (column,) = comparing.table(cells, {'lambda_c': 0, 'git_loss_form': 'pairwise'}).columns
    means = [one and one.difference.mean for one in column.comparisons]
    assert means[1] is None and means[::2] == pytest.approx([0.1, 0.1]) and means[3] == 0.0


def test_cells_without_results(tmp_path):
    """A failed cell counts in no mean, whatever it wrote before it failed."""
    cells = three_settings()
    cells[6] = cell(cells[6].settings, {'test_acc': 0.1}, 'failed', 'a | b', 'runs/x')
    cells[7] = cell(cells[7].settings, None, 'unfinished', '', 'runs/y')
    cells[8] = cell(cells[8].settings, None, 'finished', '', 'runs/z')
    page = _written(tmp_path, cells, BASELINE)['summary.md']
    for line in (
        'Cells: 7 finished, 1 failed, 1 unfinished.',
        '| 2 | 1 of 3 | – (0) |',
        '| 2 | 0 |  |  |  |  |  |',
        '- lambda_c=2 seed=1: failed: a \\| b (runs/x)',
        '- lambda_c=2 seed=2: unfinished (runs/y)',
        '- lambda_c=2 seed=3: finished, no results (runs/z)',
    ):
        assert line in page.splitlines()


def test_no_cell_has_finished(tmp_path):
    cells = [cell({'lambda_c': 0.0, 'seed': 1}, None, 'unfinished')]
    found = _written(tmp_path, cells, BASELINE, ['test_acc'])
    assert 'Cells: 1 unfinished.' in found['summary.md']
    assert found['cells.csv'].splitlines()[1] == '0.0,1,unfinished,,runs/1,'


@pytest.mark.parametrize('value', [math.nan, math.inf, None, 'high'])
def test_a_value_that_is_no_finite_number_is_left_out_and_counted(tmp_path, value):
    cells = three_settings()
    cells[0] = cell(cells[0].settings, {'test_acc': value, 'step': 1})
    page = _written(tmp_path, cells)['summary.md']
    assert '| 0 | 3 | 0.9300 ± 0.0141 (2) |' in page


def test_names_of_metrics():
    """By default those that there are, in the order of METRICS; a test metric takes the direction
    of the validation metric or that of pairs. An undeclared name has none.
    """
    final = {'mine': 1.0, 'test_eer': 0.1, 'test_acc': 0.9, 'intra_cls_dist': 1.0}
    found = results.measured([cell({'seed': 1}, final)])
    assert [(one.name, one.higher_is_better) for one in found] == [
        ('test_acc', True),
        ('intra_cls_dist', False),
        ('test_eer', False),
    ]
    (mine,) = results.measured([cell({'seed': 1}, final)], ['mine'])
    assert (mine.name, mine.higher_is_better) == ('mine', None)


@pytest.mark.parametrize(
    'direction, verdict', [(True, 'better'), (False, 'worse'), (None, 'different')]
)
def test_verdicts(direction, verdict):
    groups = results.grouped(three_settings())
    metric = results.Metric('test_acc', 'accuracy', higher_is_better=direction)
    found = comparing.compared(groups, [None, None, groups[0]], metric)
    assert found[2].verdict == verdict


def test_without_scipy_one_line_says_what_to_install(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(statistics, 'find_spec', lambda name: None)
    page = _written(tmp_path, three_settings(), BASELINE)['summary.md']
    assert 'Not computed: intervals and p values need scipy: pip install "scipy>=1.5"' in page
    assert '| 2 | 3 | +0.0500 ± 0.0001 |  |  |  |  |' in page
    assert [record.message for record in caplog.records] == [statistics.INSTALL]


def test_csv_files_have_all_digits(tmp_path):
    cells = three_settings()
    cells[0] = cell({'lambda_c': 0.0, 'seed': 1}, {'test_acc': 1 / 3}, note='a, "b"')
    found = _written(tmp_path, cells, BASELINE)
    rows = list(csv.DictReader(found['cells.csv'].splitlines()))
    assert len(rows) == 9 and float(rows[0]['test_acc']) == 1 / 3 and rows[0]['step'] == ''
    assert list(rows[0]) == 'lambda_c seed status test_acc step folder note'.split()
    assert rows[0]['note'] == 'a, "b"'
    first, second, _ = csv.DictReader(found['summary.csv'].splitlines())
    assert first['test_acc_difference'] == first['test_acc_p'] == ''
    (column,) = comparing.table(cells, BASELINE).columns
    difference = column.comparisons[1].difference
    assert float(second['test_acc_p']) == difference.p and second['test_acc_pairs'] == '3'
    assert (float(second['test_acc_low']), float(second['test_acc_high'])) == difference.interval


def test_the_latex_table(tmp_path):
    lines = _written(tmp_path, three_settings(), BASELINE)['summary.tex'].splitlines()
    at = lines.index(r'\begin{tabular}{lrc}')
    assert all(line.startswith('%') for line in lines[:at])
    assert lines[at + 1 :] == [
        r'\toprule',
        r'\texttt{lambda\_c} & seeds & test accuracy $\uparrow$ \\',
        r'\midrule',
        r'0 & 3 & $0.9200 \pm 0.0200$ \\',
        r'1 & 3 & $0.9400 \pm 0.0300$ \\',
        r'2 & 3 & $0.9700 \pm 0.0200^{+}$ \\',
        r'\bottomrule',
        r'\end{tabular}',
    ]


def test_latex_escapes():
    assert latex.escaped('a_b & 50% {x} #1 $ ~ ^ \\ <|>\n"') == (
        r'a\_b \& 50\% \{x\} \#1 \$ \textasciitilde{} \textasciicircum{} \textbackslash{} '
        r"\textless{}\textbar{}\textgreater{} {''}"
    )


def test_versions_that_differ_are_named(tmp_path):
    cells = three_settings()
    cells[0] = cell(cells[0].settings, {'test_acc': 0.9}, python='3.7.9')
    page = _written(tmp_path, cells)['summary.md']
    assert '- **not the same**: python 3.11.7 in 8, 3.7.9 in 1' in page.splitlines()


@pytest.mark.parametrize(
    'extra, message',
    [
        (three_settings()[:1], 'cells: expected one for each setting'),
        ([cell({'seed': 1})], r"settings: expected \['lambda_c', 'seed'\]. Received: \['seed'\]"),
        (
            [cell({'lambda_c': 9.0, 'seed': 1}, status='lost')],
            'status: expected one of finished, failed, unfinished. Received: lost',
        ),
    ],
)
def test_cells_that_are_refused(tmp_path, extra, message):
    with pytest.raises(ValueError, match=message):
        tables.write_tables(str(tmp_path), three_settings() + extra)
    with pytest.raises(ValueError, match='cells: expected at least one. Received: none'):
        tables.write_tables(str(tmp_path), [])
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize(
    'baseline, metrics, message',
    [
        ({'lambda_g': 0.0}, None, 'baseline: expected flags of the grid: lambda_c. Received'),
        ({'lambda_c': 5.0}, None, 'baseline: expected values of the grid. Received: lambda_c=5'),
        ({}, None, 'baseline: expected at least one flag. Received: none'),
        (None, ['test_ac'], 'metrics: expected a name in results.json, as test_acc. Received'),
    ],
)
def test_a_baseline_or_metric_that_is_not_there(tmp_path, baseline, metrics, message):
    with pytest.raises(ValueError, match=message):
        tables.write_tables(str(tmp_path), three_settings(), baseline, metrics)
    assert os.listdir(str(tmp_path)) == []
