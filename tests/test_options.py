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


@pytest.mark.parametrize('name', sorted(os.listdir(os.path.join(options.ROOT, 'flags'))))
def test_every_flag_file_parses(name):
    assert isinstance(
        parse(['--flagfile=' + os.path.join(options.ROOT, 'flags', name)]), options.Options
    )


def test_the_command_line_after_the_flag_file_wins(tmp_path):
    path = tmp_path / 'a.cfg'
    path.write_text('# comment\n--steps=5\n--lambda_g=0.25\n--noevaluate\n')
    parsed = parse([f'--flagfile={path}', '--steps=7'])
    assert (parsed.steps, parsed.lambda_g, parsed.evaluate) == (7, 0.25, False)


@pytest.mark.parametrize(
    'argument, said',
    [
        (
            '--lamda_c=1',
            '--lamda_c: expected a known flag, --lambda_c perhaps. Received: an unknown one; '
            '--help lists all',
        ),
        (
            '--loss=arcface',
            '--loss: expected --head=softmax, arcface or cosface, with the weights --lambda_c and '
            '--lambda_g. Received: a removed flag',
        ),
        ('--steps=many', "--steps: expected a whole number. Received: 'many'"),
        ('--steps=2.5', "--steps: expected a whole number. Received: '2.5'"),
        ('--steps=0', '--steps: expected at least 1. Received: 0'),
        ('--lambda_g=-1', '--lambda_g: expected at least 0. Received: -1.0'),
        ('--alpha=1.5', '--alpha: expected 0 to 1. Received: 1.5'),
        ('--learning_rate=0', '--learning_rate: expected more than 0. Received: 0.0'),
        *(
            (
                f'--{flag}={value}',
                f'--{flag}: expected a finite number, for float32 0 or from 1.2e-38 to 3.4e38. '
                f'Received: {value}',
            )
            # The largest float32 is 3.40282e38, the smallest normal one 1.17549e-38.
            for flag, value in (
                ('learning_rate', 'inf'),
                ('lambda_g', '1e+39'),
                ('lambda_c', '3.5e+38'),
                ('adam_epsilon', '1e+300'),
                ('adam_epsilon', '1e-39'),
                ('scale', '1e+300'),
            )
        ),
        (
            '--git_loss_form=paper',
            "--git_loss_form: expected one of elementwise, pairwise. Received: 'paper'",
        ),
        (
            '--optimizer=rmsprop',
            "--optimizer: expected one of adam, sgd, momentum, adagrad. Received: 'rmsprop'",
        ),
        ('--schedule=exp', "--schedule: expected one of constant, step, cosine. Received: 'exp'"),
        ('--schedule=step', '--decay_steps: expected at least 1 with --schedule=step. Received: 0'),
        ('--decay_rate=2', '--decay_rate: expected 0 to 1. Received: 2.0'),
        ('--early_stopping=-1', '--early_stopping: expected 0 to 1000000000. Received: -1'),
        ('--evaluate=perhaps', "--evaluate: expected true or false. Received: 'perhaps'"),
        ('steps=3', 'arguments: expected flags only, --name=value. Received: steps=3'),
    ],
)
def test_a_mistake_is_one_line_that_names_flag_expected_received(argument, said):
    with pytest.raises(OptionError) as caught:
        parse([argument])
    assert str(caught.value) == said


@pytest.mark.parametrize(
    'arguments, said',
    [
        (
            ['--schedule=cosine', '--warmup_steps=9', '--steps=9'],
            '--warmup_steps: expected less than --steps, 9, with --schedule=cosine. Received: 9',
        ),
        (
            ['--valid_fraction=0.5', '--test_fraction=0.5'],
            '--valid_fraction: expected less than 1 with --test_fraction, 0.5. Received: 0.5',
        ),
    ],
)
def test_flags_that_do_not_go_together(arguments, said):
    with pytest.raises(OptionError) as caught:
        parse(arguments)
    assert str(caught.value) == said


def names_where(condition):
    return {name for name, option in options.FIELDS.items() if condition(option)}


def test_a_resumed_run_may_differ_in_where_how_and_how_long_it_goes():
    """Bound options decide the result: data, network, loss, optimization, measurements, metrics.
    Free are the folders (data_path, exp_save_dir), the check of the images, which a resumed run
    does not repeat, what is kept and shown (resume to projection),
    the end (steps, early_stopping, on_nan, max_loss), and the device with its options, so that a
    run of an NPU can be resumed elsewhere. Flags of other commands are never set.
    """
    assert names_where(lambda option: option.resume) == {
        *('data_path', 'exp_save_dir', 'check_images', 'max_broken'),
        *('resume', 'save_every', 'keep_checkpoints', 'log_every', 'tf_logs', 'projection'),
        *('steps', 'early_stopping', 'on_nan', 'max_loss'),
        *('device', 'precision', 'precision_mode', 'loss_scale', 'iterations_per_loop'),
        *('npu_option', 'collective_timeout', 'check_replicas'),
        *('ckpt_path', 'format', 'export_dir', 'export_batch'),
    }


def test_workers_may_differ_in_where_things_lie_and_in_what_the_chief_does_alone():
    """Workers may differ in the folders of their machines, the device, and what is shown; only the
    chief keeps checkpoints, draws, and decides what is resumed. ckpt_path belongs to other
    commands.
    """
    assert names_where(lambda option: option.workers) == {
        *('data_path', 'exp_save_dir', 'device', 'log_every', 'tf_logs'),
        *('resume', 'keep_checkpoints', 'projection', 'ckpt_path'),
    }


def test_hyperparameters_are_what_decides_what_is_learned():
    """All except folders, the check of the images, checkpoints, output, device, workers, and the
    flags of other commands. Of the options of the device, precision and loss_scale change the
    arithmetic.
    """
    assert names_where(lambda option: not option.hyperparameter) == {
        *('data_path', 'exp_save_dir', 'resume', 'save_every', 'keep_checkpoints', 'best'),
        *('check_images', 'max_broken'),
        *('on_nan', 'max_loss', 'log_every', 'tf_logs', 'projection'),
        *('device', 'precision_mode', 'iterations_per_loop', 'npu_option'),
        *('collective_timeout', 'check_replicas'),
        *('ckpt_path', 'format', 'export_dir', 'export_batch'),
    }
    found = options.Options(lambda_g=0.5).hyperparameters()
    assert found['lambda_g'] == 0.5
    assert set(found) == names_where(lambda option: option.hyperparameter)


def flags_of_command(command):
    return names_where(lambda option: command in option.commands)


def test_each_command_takes_what_it_uses():
    """An evaluation takes data, batches and a device, and reads the rest from the checkpoint; an
    export takes none of these; a run takes everything except the flags that only the other two
    have.
    """
    evaluates = {'ckpt_path', 'data_path', 'batch_size', 'tf_logs'} | {
        *('device', 'precision', 'precision_mode', 'npu_option')
    }
    exports = {'ckpt_path', 'tf_logs', 'format', 'export_dir', 'export_batch'}
    assert flags_of_command('evaluate') == evaluates
    assert flags_of_command('export') == exports
    alone = {'ckpt_path', 'format', 'export_dir', 'export_batch'}
    assert flags_of_command('run') == set(options.FIELDS) - alone


def test_every_command_is_a_module():
    commands = {command for option in options.FIELDS.values() for command in option.commands}
    for command in commands:
        assert os.path.exists(os.path.join(options.ROOT, 'trainers', command + '.py'))


@pytest.mark.parametrize(
    'command, argument, said',
    [
        (
            'trainers.evaluate',
            '--steps=3',
            '--steps: expected a flag of trainers.evaluate. Received: one of trainers.run; '
            '--help lists them',
        ),
        (
            'trainers.export',
            '--noevaluate',
            '--noevaluate: expected a flag of trainers.export. Received: one of trainers.run; '
            '--help lists them',
        ),
        (
            'trainers.run',
            '--ckpt_path=output/0',
            '--ckpt_path: expected a flag of trainers.run. Received: one of trainers.evaluate and '
            'trainers.export; --help lists them',
        ),
        (
            'trainers.export',
            '--export_bach=2',
            '--export_bach: expected a known flag, --export_batch perhaps. Received: an unknown '
            'one; --help lists all',
        ),
    ],
)
def test_a_command_refuses_a_flag_that_it_does_not_use(tmp_path, command, argument, said):
    """On the command line and in a flag file."""
    path = tmp_path / 'a.cfg'
    path.write_text(argument + '\n')
    for given in (argument, f'--flagfile={path}'):
        with pytest.raises(OptionError) as caught:
            parse([given], command)
        assert str(caught.value) == said


@pytest.mark.parametrize('command', ['trainers.evaluate', 'trainers.export'])
def test_a_required_flag_says_so(command):
    with pytest.raises(OptionError) as caught:
        parse([], command)
    assert (
        str(caught.value) == f'--ckpt_path: expected a value, {command} requires it. Received: none'
    )
    with pytest.raises(options.HelpRequested, match=r'--ckpt_path=\n .* \(required\)\n'):
        parse(['--help'], command)
    assert parse(['--ckpt_path=output/0'], command).ckpt_path == 'output/0'


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


def test_a_flag_file_of_an_editor_with_a_byte_order_mark(tmp_path):
    path = tmp_path / 'a.cfg'
    path.write_bytes(b'\xef\xbb\xbf--steps=5\n')
    assert parse([f'--flagfile={path}']).steps == 5


@pytest.mark.parametrize(
    'arguments, said',
    [
        (['--noevaluate=true'], '--noevaluate: expected no value. Received: --noevaluate=true'),
        (['--flagfile'], '--flagfile: expected a readable file of flags. Received: [Errno 2]'),
        (
            ['--flagfile=fifo'],
            '--flagfile: expected a readable file of flags. Received: [Errno 22] not',
        ),
        (
            ['--flagfile', 'fifo'],
            '--flagfile: expected a readable file of flags. Received: [Errno 22]',
        ),
    ],
)
def test_flags_blame_themselves_and_nothing_is_waited_for(tmp_path, monkeypatch, arguments, said):
    """`fifo` has no writer: a reader of it would wait for ever."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo('fifo')
    with pytest.raises(OptionError) as caught:
        parse(arguments)
    assert str(caught.value).startswith(said) and '\n' not in str(caught.value)


def test_mistakes_in_a_flag_file_read_the_same(tmp_path):
    path = tmp_path / 'a.cfg'
    path.write_text('--stepz=5\n')
    with pytest.raises(OptionError, match='--stepz: expected a known flag, --steps perhaps'):
        parse([f'--flagfile={path}'])
    with pytest.raises(OptionError, match='--flagfile: expected a readable file of flags'):
        parse([f'--flagfile={tmp_path / "nowhere.cfg"}'])


@pytest.mark.parametrize('command', ['run', 'evaluate', 'export'])
def test_help_names_every_flag_of_the_command_and_no_other(command):
    with pytest.raises(options.HelpRequested) as caught:
        parse(['--help'], 'trainers.' + command)
    lines = str(caught.value).splitlines()
    named = [line.split('=')[0].strip('- ') for line in lines if line.startswith('  --')]
    headings = [line for line in lines[1:] if line.endswith(':') and not line.startswith(' ')]
    assert len(named) == len(set(named)) and set(named) == flags_of_command(command)
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
