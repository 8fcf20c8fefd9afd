"""The scripts of the model zoo on one card: their arguments, and what they write and print."""

import json
import os
import platform

import pytest

from machine import BLOCK, RESULTS, ROOT

CASE_LOG = f"""Network = Gitloss_ID1277_for_TensorFlow
RankSize = 1
BatchSize = 128
DeviceType = {platform.machine()}
CaseName = Gitloss_ID1277_for_TensorFlow_bs128_1p_acc
ActualFPS = 1113.04
TrainingTime = 115.00
TrainAccuracy = 0.9877
ActualLoss = 0.123457
E2ETrainingTime = 942
"""


def test_full_script_from_within_test(zoo):
    """BLOCK and CASE_LOG derived from RESULTS by hand: 0.98766 -> 0.9877, 0.989 -> 0.9890, 0.98912
    -> 0.9891, 0.115 s -> 115.00 ms, 941.6 s -> 942, 0.123456789 -> 0.123457. The losses are those
    of the two measurements.
    """
    run = zoo.root / 'output' / '0'
    here = zoo.root / 'test'
    status, out, _ = zoo.bash(
        'train_full_1p.sh', '--steps=20', '--data_path=', cwd=here, RUN=str(run), **zoo.variables
    )
    assert (status, out) == (0, BLOCK)
    command = (
        f'trainers.run --flagfile={zoo.root}/flags/full.cfg --resume=never --steps=20 --data_path='
    )
    assert zoo.logged() == [str(here), command, '0 1 0 10087']
    name = 'Gitloss_ID1277_for_TensorFlow_bs128_1p_acc'
    assert (run / (name + '.log')).read_text() == CASE_LOG
    assert (run / (f'train_{name}_loss.txt')).read_text() == '0.500000\n0.123457\n'


def test_performance_script_of_another_device_without_accuracies(zoo):
    """Without evaluation there is no valid_acc and no test_acc: two lines less. A speed that was
    not measured is nan, and no error.
    """
    results = dict(
        RESULTS,
        final={'step': 1, 'train_loss': 2.0, 'train_acc': 0.5},
        throughput={'images_per_sec': None, 'sec_per_step': None},
    )
    (zoo.home / 'results.json').write_text(json.dumps(results))
    run = zoo.root / 'output' / '3'
    status, out, _ = zoo.bash(
        'test/train_performance_1p.sh', RUN=str(run), ASCEND_DEVICE_ID='3', **zoo.variables
    )
    assert (
        status == 0
        and zoo.logged()[-1] == '3 1 0 10087'
        and 'flags/performance.cfg' in zoo.logged()[1]
    )
    assert out.splitlines()[1:] == [
        'Final Performance images/sec : nan',
        'Final Performance sec/step : nan',
        'E2E Training Duration sec : 942',
        'Final Train Accuracy : 0.5000',
    ]
    lines = (run / 'Gitloss_ID1277_for_TensorFlow_bs128_1p_perf.log').read_text().splitlines()
    assert lines[4:7] == [
        'CaseName = Gitloss_ID1277_for_TensorFlow_bs128_1p_perf',
        'ActualFPS = nan',
        'TrainingTime = nan',
    ]


def test_results_are_read_where_exp_save_dir_says(zoo):
    """A relative folder is relative to the current folder of the user, here the home folder."""
    script = str(zoo.root / 'test' / 'train_full_1p.sh')
    status, out, _ = zoo.bash(
        script, '--exp_save_dir=mine', cwd=zoo.home, RUN='mine', **zoo.variables
    )
    assert (status, out) == (0, BLOCK)
    assert len(list((zoo.home / 'mine').glob('*_acc*'))) == 2


def test_failed_training_gives_its_status_and_no_final_result(zoo):
    zoo.fail.write_text('')
    status, out, _ = zoo.bash('test/train_full_1p.sh', RUN=str(zoo.home), **zoo.variables)
    assert (status, out) == (3, '')


@pytest.mark.parametrize('flag', ['-h', '--help'])
def test_help_needs_no_python(machine, flag):
    status, out, _ = machine.bash('test/train_full_1p.sh', flag)
    assert (
        status == 0
        and out.startswith('usage: bash test/train_full_1p.sh')
        and '--data_path=' in out
    )


@pytest.mark.parametrize(
    'arguments, expected',
    [
        (
            ['--over_dump=True'],
            'enable_dump_debug=true,dump_debug_mode=all,dump_path={out}/overflow_dump/3',
        ),
        (
            ['--data_dump_flag=true'],
            'enable_dump=true,dump_mode=all,dump_step=10,dump_path={out}/data_dump/3',
        ),
        (
            ['--data_dump_flag=1', '--data_dump_step=0|5'],
            'enable_dump=true,dump_mode=all,dump_step=0|5,dump_path={out}/data_dump/3',
        ),
        (
            ['--autotune=True', '--npu_option=deterministic=1'],
            'aoe_mode=2,work_path={out}/autotune/3,deterministic=1',
        ),
        (
            ['--profiling=True'],
            'profiling_mode=true,profiling_options={{"output":"{out}/profiling/3","training_trace":"on","task_trace":"on",'
            '"aicpu":"on","fp_point":"","bp_point":""}}',
        ),
        (
            [
                '--over_dump=False',
                '--data_dump_flag=False',
                '--profiling=False',
                '--autotune=False',
                '--data_dump_step=10',
            ],
            None,
        ),
    ],
)
def test_the_zoos_arguments_become_settings_of_the_session(zoo, arguments, expected):
    """One --npu_option with all of them, which the parser of the trainer splits again; the folders
    are created.
    """
    from trainers.devices import npu_options

    run = zoo.root / 'output' / '3'
    status, _, err = zoo.bash(
        'test/train_full_1p.sh',
        '--steps=20',
        *arguments,
        RUN=str(run),
        ASCEND_DEVICE_ID='3',
        **zoo.variables,
    )
    assert status == 0, err
    given = zoo.logged()[1].split(' --steps=20')[1].strip()
    assert given == ('--npu_option=' + expected.format(out=zoo.root / 'output') if expected else '')
    values = npu_options.parse(given[len('--npu_option=') :])
    assert set(values) == {
        part.split('=')[0] for part in (expected or '').split(',') if '=' in part
    }


def test_the_zoos_ckpt_path_is_what_the_training_starts_from(zoo):
    """Only the commands that evaluate and export read the trainer's own --ckpt_path."""
    status, _, err = zoo.bash(
        'test/train_full_1p.sh',
        '--ckpt_path=/a/run',
        '--steps=20',
        RUN=str(zoo.root / 'output' / '0'),
        **zoo.variables,
    )
    assert status == 0, err
    assert zoo.logged()[1].endswith(' --resume=never --init_checkpoint=/a/run --steps=20')
    assert '--ckpt_path=' in zoo.bash('test/train_full_1p.sh', '--help')[1]


@pytest.mark.parametrize(
    'arguments, said',
    [
        (
            ['--over_dump=True', '--data_dump_flag=True'],
            '--over_dump: expected without --data_dump_flag, of which the NPU can do one',
        ),
        (['--profiling=yes'], '--profiling: expected True or False. Received: yes'),
    ],
)
def test_arguments_of_the_zoo_that_cannot_be_are_one_line(zoo, arguments, said):
    status, out, err = zoo.bash('test/train_full_1p.sh', *arguments, **zoo.variables)
    assert (
        (status, out, err.count('\n')) == (2, '', 1) and err.startswith(said) and zoo.logged() == []
    )


def test_the_level_file_is_in_the_zoos_form():
    with open(os.path.join(ROOT, 'modelzoo_level.txt')) as file:
        lines = [line.strip().split(':') for line in file]
    assert [name for name, _ in lines] == ['FuncStatus', 'PerfStatus', 'PrecisionStatus']
    assert {level for _, level in lines} <= {'OK', 'NOK', 'POK', 'PERFECT'}
