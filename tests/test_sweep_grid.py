"""The grid of a sweep: from text to the options of each run."""

import os

import pytest

from gitloss.errors import OptionError
from trainers.options import Options, parse
from trainers.sweeping import grid


def options(*flags):
    return parse(['--grid=' + flags[0], *flags[1:]], 'trainers.sweep')


def test_values_are_separated_by_commas_or_bars_and_ranges_are_counted():
    assert grid.read('lambda_g=0,0.1 seed=1..3,7 --augment=|crop:2|crop:2,rotate:10') == {
        'lambda_g': ['0', '0.1'],
        'seed': ['1', '2', '3', '7'],
        'augment': ['', 'crop:2', 'crop:2,rotate:10'],
    }


def test_all_combinations_seed_by_seed_in_folders_named_after_them():
    found = grid.cells(
        options('lambda_g=0,0.1 git_loss_form=pairwise seed=1..2', '--steps=5', '--alpha=0.1'), '/x'
    )
    assert [cell.name for cell in found] == [
        'lambda_g=0,git_loss_form=pairwise,seed=1',
        'lambda_g=0.1,git_loss_form=pairwise,seed=1',
        'lambda_g=0,git_loss_form=pairwise,seed=2',
        'lambda_g=0.1,git_loss_form=pairwise,seed=2',
    ]
    last = found[-1]
    assert last.settings == {'lambda_g': 0.1, 'git_loss_form': 'pairwise', 'seed': 2}
    assert list(last.settings) == ['lambda_g', 'git_loss_form', 'seed']
    assert last.options == Options(
        lambda_g=0.1,
        git_loss_form='pairwise',
        seed=2,
        steps=5,
        alpha=0.1,
        exp_save_dir=os.path.join('/x', last.name),
    )


def test_the_command_line_of_a_run_gives_its_options():
    """Also of numbers with many digits and of truth values."""
    cell = grid.cells(
        options('learning_rate=0.0012345678901234567 evaluate=false embedding_norm=true'), '/x'
    )[0]
    assert parse(grid.arguments(cell.options), 'trainers.run') == cell.options
    assert (cell.options.evaluate, cell.options.embedding_norm) == (False, True)


def test_names_that_folders_cannot_have_get_a_digest():
    """Two paths that differ in a slash; a text longer than a file system takes."""
    found = grid.cells(options('init_checkpoint=a/b,a_b,' + 'c' * 300), '/x')
    names = [cell.name for cell in found]
    assert len(set(names)) == 3 and max(map(len, names)) < 180
    assert names[1] == 'init_checkpoint=a_b' and names[0].startswith('init_checkpoint=a_b-')


def test_a_budget_scales_all_intervals():
    """8000 to 1000 steps: an eighth of each, at least 1."""
    flags = ['--steps=8000', '--update_centers=1000', '--schedule=step', '--decay_steps=2400']
    flags += ['--warmup_steps=4', '--save_every=80', '--budget=1000']
    flags += ['--augment=flip', '--augment_until=6000']
    cell = grid.cells(options('lambda_warmup_steps=0,4000', *flags), '/x')[1]
    found = cell.options
    assert (found.steps, found.update_centers, found.decay_steps) == (1000, 125, 300)
    assert (found.warmup_steps, found.lambda_warmup_steps, found.save_every) == (1, 500, '10')
    assert found.augment_until == 750
    assert cell.settings == {'lambda_warmup_steps': 4000}
    in_seconds = options('seed=1', '--save_every=60s', '--budget=10')
    assert grid.cells(in_seconds, '/x')[0].options.save_every == '60s'


@pytest.mark.parametrize(
    'text, line',
    [
        ('lambda_x=1', '--grid: expected flags of trainers.run with values, .* lambda_x=1'),
        ('lambda_g', '--grid: expected flags of trainers.run with values, .* lambda_g'),
        ('exp_save_dir=a,b', '--grid: expected flags of trainers.run .* exp_save_dir=a,b'),
        ('grid=a', '--grid: expected flags of trainers.run .* grid=a'),
        ('seed=1 seed=2', '--grid: expected each flag once. Received: seed twice'),
        ('seed=1,1', '--grid: expected each value of seed once. Received: 1,1'),
        ('seed=1..3,2', '--grid: expected each value of seed once'),
        ('seed=3..1', "--seed: expected a whole number. Received: '3..1'"),
        ('lambda_g=0,-1', '--lambda_g: expected at least 0.* Received: -1'),
        ('lambda_g=', '--lambda_g: expected a number'),
        ('seed=0..400 steps=1..400', '--grid: expected at most 100000 cells. Received: 160400'),
    ],
)
def test_a_grid_that_cannot_run_is_one_line(text, line):
    with pytest.raises(OptionError, match=f'^{line}'):
        grid.cells(options(text), '/x')


def test_settings_that_contradict_each_other_are_found_before_the_first_run():
    with pytest.raises(OptionError, match='--decay_steps: expected at least 1 with --schedule=st'):
        grid.cells(options('schedule=constant,step'), '/x')


@pytest.mark.parametrize('part', ['0/2', '3/2', '1', 'a/b', '1/2/3'])
def test_a_part_is_one_of_a_number(part):
    with pytest.raises(OptionError, match='^--part: expected a part, as 2/8'):
        options('seed=1', f'--part={part}')
