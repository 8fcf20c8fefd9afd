"""python -m trainers.sweep on a toy data set: whole, repeated, killed, stopped, with mistakes."""

import json
import os
import subprocess
import sys
import time

import pytest
from tensorboard.plugins.hparams import plugin_data_pb2

import toys
from events import read
from trainers import sweep
from trainers.options import ROOT

GRID = '--grid=lambda_g=0,1 seed=1,2'
TABLES = ('summary.md', 'summary.csv', 'summary.tex', 'cells.csv', 'curves.csv')


def flags(folder, data, *more):
    return [
        f'--data_path={data}',
        f'--exp_save_dir={folder}',
        '--steps=6',
        '--update_centers=3',
        '--batch_size=16',
        '--device=cpu',
        '--log_every=1',
        *(more or [GRID, '--baseline=lambda_g=0']),
    ]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return toys.write_mnist(tmp_path_factory.mktemp('data'), train=120, test=40)


def start(arguments):
    return subprocess.Popen(
        [sys.executable, '-m', 'trainers.sweep', *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    """(folder, output) of an undisturbed sweep."""
    folder = tmp_path_factory.mktemp('whole')
    process = start(flags(folder, data))
    said = process.communicate(timeout=240)[0].decode()
    assert process.returncode == 0, said
    return folder, said


def tables(folder):
    return {name: (folder / name).read_text() for name in TABLES}


def test_every_cell_has_a_run_and_a_row(whole):
    folder, said = whole
    names = [f'lambda_g={g},seed={seed}' for g in (0, 1) for seed in (1, 2)]
    assert sorted(os.listdir(folder / 'runs')) == names
    assert '4 runs of 6 steps, 4 of them to do' in said and 'finished 4, running 0' in said
    assert (folder / 'summary.md').read_text() in said
    rows = (folder / 'cells.csv').read_text().splitlines()
    assert len(rows) == 5 and all(',finished,' in row for row in rows[1:])
    for name in names:
        results = json.loads((folder / 'runs' / name / 'results.json').read_text())
        assert results['final']['step'] == 6 and 'test_eer' in results['final']
    assert {'heat-test_acc.png', 'scatter-grid.png'} <= set(os.listdir(folder))


def test_tensorboard_shows_the_flags_of_the_grid_first(whole):
    """TensorBoard takes the columns of any run: all of them declare the same."""
    for run in (whole[0] / 'runs').iterdir():
        content = read(run).SummaryMetadata('_hparams_/experiment').plugin_data.content
        experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
        assert {info.name for info in experiment.hparam_infos[:2]} == {'lambda_g', 'seed'}
        columns = {info.name.tag for info in experiment.metric_infos}
        assert {'test/acc', 'test/eer', 'distance/inter_over_intra'} <= columns


def test_a_second_command_trains_nothing_and_writes_the_same(whole, data, capfd):
    """Nor does one for a single part of it, whose other runs are finished too."""
    folder, _ = whole
    before = tables(folder)
    times = [path.stat().st_mtime_ns for path in folder.glob('runs/*/results.json')]
    for more in ([], ['--part=2/3']):
        assert sweep.main([*flags(folder, data), *more]) == 0
    assert times == [path.stat().st_mtime_ns for path in folder.glob('runs/*/results.json')]
    assert tables(folder) == before
    assert '4 runs of 6 steps, 0 of them to do' in capfd.readouterr().err


def test_a_killed_sweep_goes_on_to_the_same_tables(whole, data, tmp_path):
    """Killed when the first runs have begun to train. They end soon, with a checkpoint, as their
    parent is gone.
    """
    process = start(flags(tmp_path, data))
    limit = time.monotonic() + 120
    while not list(tmp_path.glob('runs/*/history.jsonl')) and time.monotonic() < limit:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=120)
    while time.monotonic() < limit:  # until the runs have let go of their folders
        again = start(flags(tmp_path, data))
        said = again.communicate(timeout=240)[0].decode()
        if again.returncode == 0:
            break
    assert again.returncode == 0, said
    assert tables(tmp_path) == tables(whole[0])


def test_a_run_that_was_killed_behind_its_results_is_run_again(whole, data, monkeypatch):
    """Pictures and report come after results.json. It counts in the tables meanwhile, and goes on
    with the cores that each of four runs had: the numbers of another count differ in the last bit.
    """
    folder, seen = whole[0], []

    class Runner:
        def __init__(self, cells, logs, jobs, ended):
            seen.append(([cell.name for cell in cells], jobs))

        def run(self):
            return 0

    report, before = folder / 'runs' / 'lambda_g=1,seed=1' / 'report.html', tables(folder)
    content = report.read_bytes()
    report.unlink()
    monkeypatch.setattr(sweep.runner, 'Runner', Runner)
    assert sweep.main(flags(folder, data)) == 0
    report.write_bytes(content)
    assert seen == [(['lambda_g=1,seed=1'], min(sweep.runner.jobs_of(0), 4))]
    assert tables(folder) == before


def test_a_cell_that_fails_is_named_and_the_others_go_on(data, tmp_path, capfd):
    """A loss above its bound from the first step on ends one of two runs."""
    arguments = flags(tmp_path, data, '--grid=max_loss=0,0.001')
    assert sweep.main(arguments) == 1
    said = capfd.readouterr()
    assert 'max_loss=0.001' in said.err and 'failed 1' in said.err
    text = (tmp_path / 'summary.md').read_text()
    assert '1 finished' in text and '1 failed' in text and 'loss' in text


@pytest.mark.parametrize(
    'more, line',
    [
        ([], '--grid: expected a value, trainers.sweep requires it. Received: none'),
        (['--grid=lambda_q=1'], '--grid: expected flags of trainers.run with values'),
        (['--grid=lambda_g=0,x'], '--lambda_g: expected a number'),
        (['--grid=lambda_g=0,1', '--baseline=lambda_g=2'], '--baseline: expected a value of lambd'),
        (['--grid=lambda_g=0,1', '--baseline=alpha=1'], '--baseline: expected one value of each'),
        (['--grid=lambda_g=0 seed=1', '--baseline=seed=1'], '--baseline: expected one value of'),
        (['--grid=seed=1', '--jobs=-1'], '--jobs: expected 0 to 4096. Received: -1'),
        (['--grid=seed=1', '--exp_save_dir=/proc/nothing'], 'No such file|/proc/nothing'),
    ],
)
def test_mistakes_are_one_line_before_the_first_run(more, line, capfd):
    assert sweep.main(more) == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith('trainers.sweep: ')
    assert any(part in said[0] for part in line.split('|')), said


def test_a_number_of_the_baseline_may_be_written_otherwise(data, tmp_path, monkeypatch):
    """1.0 is the 1 of the grid."""
    options = sweep.Options(grid='lambda_g=0,1 seed=1', baseline='lambda_g=1.0')
    cells = sweep.grid.cells(options, str(tmp_path))
    assert sweep.overview.baseline(options.baseline, cells) == {'lambda_g': 1.0}
