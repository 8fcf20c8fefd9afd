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
            '--lamda_c: expected a known flag, --lambda_c perhaps. Received: an unknown one; --help lists all',
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
        ('--learning_rate=inf', '--learning_rate: expected a finite number. Received: inf'),
        (
            '--git_loss_form=paper',
            '--git_loss_form: expected one of elementwise, pairwise. Received: paper',
        ),
        (
            '--optimizer=rmsprop',
            '--optimizer: expected one of adam, sgd, momentum, adagrad. Received: rmsprop',
        ),
        ('--schedule=exp', '--schedule: expected one of constant, step, cosine. Received: exp'),
        ('--schedule=step', '--decay_steps: expected at least 1 with --schedule=step. Received: 0'),
        ('--decay_rate=2', '--decay_rate: expected 0 to 1. Received: 2.0'),
        ('--early_stopping=-1', '--early_stopping: expected 0 to 1e+09. Received: -1'),
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
        *(
            (
                ['--early_stopping=2', '--noevaluate', '--monitor=' + name],
                '--monitor: expected a value of the training, as train_loss, with --noevaluate. Received: '
                + name,
            )
            for name in (
                'valid_loss',
                'val_acc',
                'intra_cls_dist',
                'inter_cls_dist',
                'inter_cls_dist_running',
                'inter_over_intra',
                'centers_moved',
            )
        ),
        (
            ['--noevaluate', '--early_stopping=3', '--monitor=inter_over_intra'],
            '--monitor: expected a value of the training, as train_loss, with --noevaluate. Received: inter_over_intra',
        ),
    ],
)
def test_flags_that_do_not_go_together(arguments, said):
    with pytest.raises(OptionError) as caught:
        parse(arguments)
    assert str(caught.value) == said


@pytest.mark.parametrize('name', ['train_loss', 'center_drift', 'inter_mine'])
def test_what_a_training_alone_logs_may_be_watched(name):
    assert parse(['--early_stopping=2', '--noevaluate', '--monitor=' + name]).monitor == name


def test_hyperparameters_are_what_decides_what_is_learnt():
    found = options.Options().hyperparameters()
    assert {'steps', 'lambda_g', 'precision', 'loss_scale'} <= set(found) and not {
        'device',
        'data_path',
        'resume',
    } & set(found)


def test_mistakes_in_a_flag_file_read_the_same(tmp_path):
    path = tmp_path / 'a.cfg'
    path.write_text('--stepz=5\n')
    with pytest.raises(OptionError, match='--stepz: expected a known flag, --steps perhaps'):
        parse([f'--flagfile={path}'])
    with pytest.raises(OptionError, match='--flagfile: expected a readable file'):
        parse(['--flagfile=%s' % (tmp_path / 'nowhere.cfg')])


def test_help_names_every_flag():
    with pytest.raises(options.HelpRequested) as caught:
        parse(['--help'])
    for name in options.Options().as_dict():
        assert f'--{name}=' in str(caught.value)


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
    monkeypatch.setenv('ASCEND_DEVICE_ID', '../x')
    with pytest.raises(OptionError, match='ASCEND_DEVICE_ID: expected a device number'):
        options.device_id()
