"""Several steps sunk into one call of the NPU: --iterations_per_loop."""

import os

import numpy as np
import pytest

import toys
from fake_npu import NPU_CFG, history_of, job, on_the_fake, records, weights_of
from gitloss.backend import tf
from trainers import checkpoints
from trainers.devices import npu_options
from trainers.options import ROOT, parse

SUNK = {
    'device': 'npu',
    'iterations_per_loop': 4,
    'log_every': 4,
    'update_centers': 12,
    'steps': 24,
}

BAD_INTERVALS = [
    ({'steps': 22}, 'a divisor of --steps, 22. Received: 4'),
    ({'update_centers': 6}, 'a divisor of --update_centers, 6. Received: 4'),
    ({'save_every': '10'}, 'a divisor of --save_every, 10. Received: 4'),
    ({'log_every': 6}, 'a divisor of --log_every, 6. Received: 4'),
]


@pytest.fixture(scope='module')
def sunk_runs(tmp_path_factory):
    """{name: (options, result)} of runs with four steps per call, except `plain`."""
    folder = tmp_path_factory.mktemp('sunk')
    images = 16 if tf.__version__.startswith('1.') else 1
    code = """
from gitloss.backend import keras
def saver(options):
    return keras.callbacks.ModelCheckpoint(options.run_dir + '-at/{epoch}', save_freq=%d)
"""
    for name, every in (('good', 8), ('bad', 6)):
        (folder / (name + '_saver.py')).write_text(code % (every * images))

    def wanted(name, *flags, **changes):
        overflow = changes.pop('overflow', '')
        return (
            toys.options(folder, exp_save_dir=str(folder / name), **dict(SUNK, **changes)),
            flags,
            overflow,
        )

    cases = dict(
        {
            'sunk': wanted('sunk'),
            'plain': wanted('plain', iterations_per_loop=1, evaluate=False),
            'bad_saver': wanted('bad_saver', f'--callbacks={folder / "bad_saver.py"}:saver'),
            'good_saver': wanted(
                'good_saver', '--noevaluate', f'--callbacks={folder / "good_saver.py"}:saver'
            ),
            'overflow': wanted('overflow', loss_scale='1024', evaluate=False, overflow='0'),
            'again': wanted('overflow', loss_scale='1024', evaluate=False),
        },
        **{str(changes): wanted('bad', **changes) for changes, _ in BAD_INTERVALS},
    )
    results = on_the_fake(
        *[
            job(settings, *flags, FAKE_NPU_OVERFLOW=overflow)
            for settings, flags, overflow in cases.values()
        ]
    )
    return {name: (case[0], result) for (name, case), result in zip(cases.items(), results)}


def test_sinking_makes_the_same_steps_in_fewer_calls(sunk_runs):
    """24 steps in calls of 4: six calls, and the weights of a run with one step per call, to the
    last bit of the fake.
    """
    for name in ('sunk', 'plain'):
        assert sunk_runs[name][1].returncode == 0, sunk_runs[name][1].stderr
    sunk, plain = sunk_runs['sunk'][0], sunk_runs['plain'][0]
    steps = [row['run'] for row in records(sunk, 'run') if row['training']]
    assert len(steps) == 6 and all('IterationOp' in names for names in steps)
    assert records(sunk, 'config')[0]['config'] == {
        'use_off_line': True,
        'precision_mode': 'allow_mix_precision',
        'iterations_per_loop': 4,
        'enable_data_pre_proc': True,
    }
    assert [row['step'] for row in history_of(sunk)] == [12, 24]
    for name, value in weights_of(plain, 24).items():
        np.testing.assert_array_equal(value, weights_of(sunk, 24)[name], err_msg=name)


@pytest.mark.parametrize('flags, said', BAD_INTERVALS)
def test_every_interval_must_be_divisible(sunk_runs, flags, said):
    result = sunk_runs[str(flags)][1]
    assert (result.returncode, result.stderr) == (
        2,
        f'trainers.run: --iterations_per_loop: expected {said}\n',
    )


def test_the_flag_file_keeps_the_rules_and_is_the_published_recipe():
    """Its 100 steps per call divide every interval. It differs from flags/full.cfg in the flags of
    the device and in two others.
    """
    settings = parse(['--flagfile=' + NPU_CFG])
    assert [
        steps % settings.iterations_per_loop
        for steps in (settings.steps, settings.update_centers, settings.log_every)
    ] == [0, 0, 0]
    assert npu_options.settings(settings) == {
        'use_off_line': True,
        'precision_mode': 'allow_mix_precision',
        'iterations_per_loop': 100,
        'enable_data_pre_proc': True,
    }
    full = parse(['--flagfile=' + os.path.join(ROOT, 'flags', 'full.cfg')]).as_dict()
    assert {name for name, value in settings.as_dict().items() if value != full[name]} == {
        'device',
        'precision',
        'iterations_per_loop',
        'adam_epsilon',
    }


def test_a_model_checkpoint_of_keras_counts_the_steps_of_a_sunk_loop(sunk_runs):
    """save_freq of 8 steps (8 * 16 images on TensorFlow 1.15) and calls of 4: saved after steps 8,
    16 and 24, in epochs of 12 steps, so into the folders of the epochs 1, 2 and again 2. Every 6
    steps is rejected: no call ends there.
    """
    result = sunk_runs['bad_saver'][1]
    assert (result.returncode, result.stderr) == (
        2,
        'trainers.run: --iterations_per_loop: expected a divisor of save_freq of '
        'keras.ModelCheckpoint, 6. Received: 4\n',
    )
    settings, result = sunk_runs['good_saver']
    assert result.returncode == 0, result.stderr
    steps = {
        name: checkpoints.read(settings.run_dir + '-at/' + name).step
        for name in os.listdir(settings.run_dir + '-at')
    }
    assert steps == {'1': 8, '2': 24}


def test_sinking_and_overflow_together_measure_what_they_pass(sunk_runs):
    """24 steps in calls of 4, update 0 overflows: calls end at 3, 7, 11, 15, 19, 23 and 27. The
    measurement of step 12 comes at 15, the end
    at 27, three steps late, and the run counts as finished: continued, it trains nothing."""
    settings, result = sunk_runs['overflow']
    assert result.returncode == 0, result.stderr
    assert [row['step'] for row in history_of(settings)] == [15, 27]
    assert [line.split()[1] for line in result.stderr.splitlines() if '  accuracy ' in line] == [
        f'{step}/24' for step in (7, 11, 15, 19, 23, 27)
    ]
    result = sunk_runs['again'][1]
    assert result.returncode == 0 and 'all steps are done' in result.stderr, result.stderr
