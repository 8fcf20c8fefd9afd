"""Whole runs on the fake NPU, overflows and checkpoints included."""

import json
import subprocess

import pytest

import toys
from fake_npu import NPU_CFG, here, history_of, job, on_the_fake, records, weights_of
from trainers import evaluate, export
from trainers.options import parse


def _short_flag_file(folder, data_path):
    """The options of flags/npu.cfg for 200 steps on the toy data."""
    return parse(
        [
            '--flagfile=' + NPU_CFG,
            '--steps=200',
            '--update_centers=100',
            '--batch_size=16',
            '--noevaluate',
            '--data_path=' + data_path,
            '--exp_save_dir=' + str(folder / 'flagfile'),
        ]
    )


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """{name: (options, result)} of independent runs on the fake."""
    folder = tmp_path_factory.mktemp('npu')

    def options(name, **changes):
        return toys.options(
            folder, exp_save_dir=str(folder / name), **dict({'device': 'npu'}, **changes)
        )

    dynamic = {'loss_scale': 'dynamic', 'adam_epsilon': 1e-4}
    begun = options('begun', steps=4, device='cpu', evaluate=False)
    assert here(begun) == 0
    wanted = {
        'whole': (options('whole', log_every=4), {}),
        'auto': (
            options('auto', device='auto', steps=2, evaluate=False),
            {'ASCEND_DEVICE_ID': '2'},
        ),
        # The 1st and 2nd update (numbers 0 and 1) overflow, and the 8th.
        'scaled': (options('scaled', **dynamic), {'FAKE_NPU_OVERFLOW': '0,1,7'}),
        'continued': (
            options('begun', steps=8, evaluate=False, **dict(dynamic, adam_epsilon=1e-8)),
            {},
        ),
        # A fixed scale of 3e37 times a loss of some 90 is infinite in float32.
        'endless': (
            options('endless', evaluate=False, lambda_g=100.0, loss_scale='3' + 37 * '0'),
            {},
        ),
    }
    jobs = [job(settings, **variables) for settings, variables in wanted.values()]
    short = _short_flag_file(folder, begun.data_path)
    results = on_the_fake(*jobs, job(short))
    return dict(
        zip(
            list(wanted) + ['flagfile'],
            zip([settings for settings, _ in wanted.values()] + [short], results),
        )
    )


@pytest.fixture
def whole(runs):
    """(options, result) of a run of 12 steps on the fake."""
    assert runs['whole'][1].returncode == 0, runs['whole'][1].stderr
    return runs['whole']


def test_auto_takes_the_npu_where_adapter_and_card_are_and_says_why(runs):
    result = runs['auto'][1]
    assert result.returncode == 0, result.stderr
    assert (
        'device npu (the adapter of CANN is there and ASCEND_DEVICE_ID is set; allow_mix_precision)'
        in result.stderr
    )


def test_a_run_on_the_npu_trains_as_on_the_cpu(whole, tmp_path):
    """The fake computes in float32 on the CPU, so the history equals that of a run there: the
    graphs compute the same.
    """
    settings, result = whole
    assert 'device npu (--device=npu; allow_mix_precision)' in result.stderr
    assert [row['config'] for row in records(settings, 'config')] == [
        {'use_off_line': True, 'precision_mode': 'allow_mix_precision'}
    ]
    other = toys.options(tmp_path, data_path=settings.data_path)
    assert here(other) == 0
    timed = ('seconds', 'images_per_sec')
    assert len(history_of(settings)) == 3
    for row, there in zip(history_of(settings), history_of(other)):
        assert {name: value for name, value in row.items() if name not in timed} == {
            name: pytest.approx(value, rel=1e-4)
            for name, value in there.items()
            if name not in timed
        }


def test_fetch_sets_stay_constant(whole):
    """All 12 steps use one set of fetches; the whole run uses 8, each of which an NPU compiles
    once: the initializers, the iterator, the step, the sweeps with and without losses, the counts
    of the centers, the check of the weights, and the saver.
    """
    runs = records(whole[0], 'run')
    steps = [tuple(row['run']) for row in runs if row['training']]
    assert len(steps) == 12 and len(set(steps)) == 1
    assert len({tuple(row['run']) for row in runs}) == 8


def test_the_flag_file_trains(runs):
    """200 steps of toy data in two calls."""
    settings, result = runs['flagfile']
    assert result.returncode == 0, result.stderr
    assert len([row for row in records(settings, 'run') if row['training']]) == 2
    assert [row['step'] for row in history_of(settings)] == [100, 200]


def test_an_epsilon_that_float16_has_not_is_warned_of(runs):
    """The warning appears with the default of 1e-8 in mixed precision, not with 1e-4, set by flag
    or by flags/npu.cfg.
    """
    warned = {
        name: [line for line in result.stderr.splitlines() if 'warning' in line]
        for name, (_, result) in runs.items()
    }
    assert warned['whole'] == [
        'warning: --adam_epsilon=1e-08 is 0 in float16: an update may divide by 0; 1e-4 is advised'
    ]
    assert warned['scaled'] == warned['flagfile'] == []


@pytest.fixture
def scaled(runs):
    """A run of 12 steps with dynamic loss scaling and three overflows."""
    assert runs['scaled'][1].returncode == 0, runs['scaled'][1].stderr
    return runs['scaled']


def test_overflow_steps_are_left_out_counted_and_logged(scaled):
    """12 steps need 15 runs. Two overflows halve the scale, 2^16 -> 2^15; the third, after a reset,
    is only counted: bad_steps 1. The 1st and the 2nd are logged, as the count reaches a power of
    two.
    """
    settings, result = scaled
    assert [row['overflow_steps'] for row in history_of(settings)] == [2, 3, 3]
    assert [line for line in result.stderr.splitlines() if 'overflow' in line] == [
        f'step 0: overflow under loss scaling, update left out; {count} so far' for count in (1, 2)
    ]
    assert len([row for row in records(settings, 'run') if row['training']]) == 15
    weights = weights_of(settings, 12)
    assert (
        weights['loss_scale'],
        weights['bad_steps'],
        weights['good_steps'],
        weights['global_step'],
    ) == (2.0**15, 1, 7, 12)
    assert weights['beta1_power'] == pytest.approx(0.9**13)


@pytest.mark.usefixtures('forked_parity')
def test_a_checkpoint_of_the_npu_is_evaluated_exported_resumed_and_started_from_on_the_cpu(
    scaled, tmp_path, capsys
):
    """Variable names are those of any other run, whatever conditional Adam's scalars were created
    in; the variables of loss scaling are not read.
    """
    settings, _ = scaled
    assert (
        evaluate.main(
            [
                '--ckpt_path=' + settings.run_dir,
                '--data_path=' + settings.data_path,
                '--batch_size=16',
                '--device=cpu',
            ]
        )
        == 0
    )
    best = max(history_of(settings), key=lambda row: row['valid_acc'])
    assert json.loads(capsys.readouterr().out)['valid']['acc'] == best['valid_acc']
    assert export.main(['--ckpt_path=' + settings.run_dir, '--export_dir=' + str(tmp_path)]) == 0
    assert json.loads((tmp_path / 'gitloss.json').read_text())['checkpoint']['step'] == best['step']
    moved = str(tmp_path / 'moved')
    subprocess.run(['cp', '-r', settings.run_dir, moved], check=True)
    common = {'data_path': settings.data_path, 'adam_epsilon': 1e-4, 'device': 'cpu'}
    longer = toys.options(tmp_path, exp_save_dir=moved, steps=16, **common)
    assert here(longer) == 0
    assert 'continuing at step 12 of 16' in capsys.readouterr().err and [
        row['step'] for row in history_of(longer)
    ] == [4, 8, 12, 16]
    assert weights_of(longer, 16)['beta1_power'] == pytest.approx(
        0.9**17
    ) and 'loss_scale' not in weights_of(longer, 16)
    tuned = toys.options(tmp_path, init_checkpoint=settings.run_dir, steps=4, **common)
    assert here(tuned) == 0 and 'weights from ' in capsys.readouterr().err


def test_a_checkpoint_of_the_cpu_goes_on_on_the_npu_with_a_fresh_loss_scale(runs):
    settings, result = runs['continued']
    assert result.returncode == 0, result.stderr
    assert (
        'no bad_steps, good_steps, loss_scale in the checkpoint: loss scaling begins anew'
        in result.stderr
    )
    weights = weights_of(settings, 8)
    assert (weights['loss_scale'], weights['global_step']) == (2.0**16, 8)


def test_a_scale_that_always_overflows_ends_the_training(runs):
    result = runs['endless'][1]
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        'trainers.run: step 0: expected one without overflow. Received: 201 in a row; is '
        '--loss_scale too large?'
    )


def test_loss_scaling_elsewhere_is_tensorflows(tmp_path):
    """On the CPU, without a card: lambda_g = 1e38 times the first scale, 2^15, overflows float32,
    so steps are skipped until it fits.
    """
    settings = toys.options(
        tmp_path, loss_scale='dynamic', lambda_g=1e38, optimizer='sgd', learning_rate=1e-37
    )
    assert here(settings) == 0
    rows = history_of(settings)
    assert rows[-1]['step'] == 12 and rows[-1]['overflow_steps'] > 0
    assert weights_of(settings, 12)['current_loss_scale'] < 2.0**15
