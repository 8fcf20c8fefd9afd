"""What the options are, which command takes them, and how they are parsed."""

import os

import pytest

from gitloss.errors import OptionError
from trainers import options
from trainers.options import parse


def test_upstream_flags_keep_their_names_and_defaults():
    """The published table: update_centers 1000, lambda_c 1.0, lambda_g 1.0, steps 8000, batch
    128.
    """
    parsed = parse([])
    assert (
        parsed.update_centers,
        parsed.lambda_c,
        parsed.lambda_g,
        parsed.steps,
        parsed.batch_size,
    ) == (1000, 1.0, 1.0, 8000, 128)
    assert (parsed.exp_save_dir, parsed.data_path) == ('', '')


def test_full_cfg_is_the_published_recipe():
    assert (
        parse(['--flagfile=' + os.path.join(options.ROOT, 'flags', 'full.cfg')])
        == options.Options()
    )


def test_the_command_line_after_the_flag_file_wins(tmp_path):
    path = tmp_path / 'a.cfg'
    path.write_text('# comment\n--steps=5\n--lambda_g=0.25\n--noevaluate\n')
    parsed = parse([f'--flagfile={path}', '--steps=7'])
    assert (parsed.steps, parsed.lambda_g, parsed.evaluate) == (7, 0.25, False)


def names_where(condition):
    return {name for name, option in options.FIELDS.items() if condition(option)}


EXPORTING = {'format', 'export_dir', 'export_batch', 'input_dtype', 'parity_tolerance'}
EXPORTING |= {'classifier'}
# The options of embeddings and their verification.
JUDGING = {'pairs', 'embeddings', 'verify_pairs', 'pairs_path', 'similarity', 'far', 'report_path'}
JUDGING |= {'out', 'flip', 'align', 'gallery', 'neighbors', 'calibration', 'threshold'}
SWEEPING = {'grid', 'baseline', 'budget', 'jobs', 'part'}


def test_a_resumed_run_may_differ_in_where_how_and_how_long_it_goes():
    """Bound options decide the result: data, network, loss, optimization, measurements, metrics.
    Free are the folders (data_path, exp_save_dir), the check of the images, which a resumed run
    does not repeat, what is kept and shown (resume to projection),
    the end (steps, early_stopping, on_nan, max_loss), the number of shards, and the device with its
    options, so that a run of an NPU can go on elsewhere. Flags of other commands are never set.
    """
    assert names_where(lambda option: option.resume) == {
        *('data_path', 'exp_save_dir', 'check_images', 'max_broken'),
        *('resume', 'save_every', 'keep_checkpoints', 'log_every', 'tf_logs', 'projection'),
        *('steps', 'early_stopping', 'on_nan', 'max_loss'),
        *('device', 'precision', 'precision_mode', 'loss_scale', 'iterations_per_loop'),
        *('npu_option', 'collective_timeout', 'check_replicas', 'class_shards'),
        'ckpt_path',
        *EXPORTING,
        *('out_path', 'shard_images', 'threads'),
        *JUDGING,
        *SWEEPING,
    }


def test_workers_may_differ_in_where_things_lie_and_in_what_the_chief_does_alone():
    """Workers may differ in the folders of their machines, the device, and what is shown; only the
    chief keeps checkpoints, draws, and decides what is resumed. ckpt_path belongs to other
    commands.
    """
    assert names_where(lambda option: option.workers) == {
        *('data_path', 'exp_save_dir', 'device', 'log_every', 'tf_logs'),
        *('resume', 'keep_checkpoints', 'projection', 'ckpt_path'),
        *('verify_pairs', 'pairs_path'),
    }


def test_hyperparameters_are_what_decides_what_is_learned():
    """All except folders, the check of the images, checkpoints, output, device, workers, and the
    flags of other commands. Of the options of the device, precision and loss_scale change the
    arithmetic.
    """
    assert names_where(lambda option: not option.hyperparameter) == {
        *('data_path', 'exp_save_dir', 'resume', 'save_every', 'keep_checkpoints', 'best'),
        'measure_samples',
        *('check_images', 'max_broken'),
        *('on_nan', 'max_loss', 'log_every', 'tf_logs', 'projection'),
        *('device', 'precision_mode', 'iterations_per_loop', 'npu_option'),
        *('collective_timeout', 'check_replicas'),
        'ckpt_path',
        *EXPORTING,
        *('out_path', 'shard_images', 'threads'),
        *JUDGING,
        *SWEEPING,
    }
    found = options.Options(lambda_g=0.5).hyperparameters()
    assert found['lambda_g'] == 0.5
    assert set(found) == names_where(lambda option: option.hyperparameter)


def flags_of_command(command):
    return names_where(lambda option: command in option.commands)


def test_each_command_takes_what_it_uses():
    """An evaluation, an embedding and a prediction take data, batches and a device, and read the
    rest from the checkpoint; an export and a conversion take data only; a run
    takes everything except the flags that only the others have.
    """
    computes = {'ckpt_path', 'data_path', 'batch_size', 'tf_logs'} | {
        *('device', 'precision', 'precision_mode', 'npu_option')
    }
    embeds, recognises = (
        {'out', 'flip', 'align'},
        {'gallery', 'neighbors', 'calibration', 'threshold'},
    )
    evaluates = computes | JUDGING - embeds - recognises - {'verify_pairs'}
    assert flags_of_command('embed') == computes | embeds | {'normalize'}
    predicts = computes - {'data_path'} | recognises | {'flip', 'align', 'similarity'}
    assert flags_of_command('predict') == predicts
    exports = {'ckpt_path', 'tf_logs', 'data_path'} | EXPORTING
    assert flags_of_command('evaluate') == evaluates
    assert flags_of_command('export') == exports
    alone = {'out_path', 'shard_images', 'threads'}
    assert flags_of_command('convert') == alone | {'dataset', 'data_path', 'max_broken', 'tf_logs'}
    assert flags_of_command('sweep') == SWEEPING
    alone |= {'ckpt_path'} | EXPORTING | SWEEPING
    alone |= JUDGING - {'verify_pairs', 'pairs_path', 'similarity', 'far'}
    assert flags_of_command('run') == set(options.FIELDS) - alone


def test_every_command_is_a_module():
    commands = {command for option in options.FIELDS.values() for command in option.commands}
    for command in commands:
        assert os.path.exists(os.path.join(options.ROOT, 'trainers', command + '.py'))


def test_the_options_of_a_checkpoint_for_a_command():
    """The flags of the command and the device are those of this process, even at their defaults: a
    checkpoint of sunk steps is evaluated on a CPU. Everything else is as saved.
    """
    saved = options.Options(
        embedding_dim=3, batch_size=64, steps=20, iterations_per_loop=5, device='npu'
    ).as_dict()
    mine = parse(['--ckpt_path=output/0', '--batch_size=16'], 'trainers.evaluate')
    assert mine.with_saved(dict(saved, gone=1), 'evaluate') == options.Options(
        embedding_dim=3, batch_size=16, steps=20, ckpt_path='output/0'
    )


@pytest.mark.parametrize('command', ['run', 'evaluate', 'export', 'sweep'])
def test_help_names_every_flag_of_the_command_and_no_other(command):
    with pytest.raises(options.HelpRequested) as caught:
        parse(['--help'], 'trainers.' + command)
    lines = str(caught.value).splitlines()
    named = [line.split('=')[0].strip('- ') for line in lines if line.startswith('  --')]
    headings = [line for line in lines[1:] if line.endswith(':') and not line.startswith(' ')]
    expected = flags_of_command(command)
    if command == 'sweep':  # the flags of its runs, too
        expected |= flags_of_command('run')
    assert len(named) == len(set(named)) and set(named) == expected
    assert len(headings) == len(set(headings)) > 1


def test_the_readme_table_is_the_one_the_flags_make():
    with open(os.path.join(options.ROOT, 'README.md'), encoding='utf-8') as file:
        assert options.markdown_table() in file.read()


def test_options_are_frozen():
    with pytest.raises(AttributeError):
        options.Options().steps = 3


def test_device_id_names_the_run_folder(monkeypatch):
    monkeypatch.delenv('DEVICE_ID', raising=False)
    monkeypatch.setenv('ASCEND_DEVICE_ID', '3')
    assert options.Options().run_dir == os.path.join(options.ROOT, 'output', '3')
    monkeypatch.delenv('ASCEND_DEVICE_ID')
    assert options.Options().run_dir == os.path.join(options.ROOT, 'output', '0')
    for text in ('../x', '1\n', '٣'):  # the last one is 3 in Arabic digits
        monkeypatch.setenv('ASCEND_DEVICE_ID', text)
        with pytest.raises(OptionError, match='ASCEND_DEVICE_ID: expected a device number'):
            options.device_id()
