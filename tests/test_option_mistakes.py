"""Mistakes on the command line and in flag files: one line that names flag and reason."""

import os

import pytest

from gitloss.errors import OptionError
from trainers import options
from trainers.options import parse


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
            ['--augment_until=5'],
            '--augment_until: expected an --augment that it ends. Received: none',
        ),
        (
            ['--valid_fraction=0.5', '--test_fraction=0.5'],
            '--valid_fraction: expected less than 1 with --test_fraction, 0.5. Received: 0.5',
        ),
        (
            ['--reset_centers', '--measure_samples=9'],
            '--measure_samples: expected 0 with --reset_centers, which needs all class means. '
            'Received: 9',
        ),
        (
            ['--dataset=mnist', '--split=identity'],
            '--split: expected a --dataset of images, as folder. '
            'Received: identity with --dataset=mnist',
        ),
        (
            ['--nocheck_images'],
            '--check_images: expected a --dataset of images, as folder. '
            'Received: False with --dataset=mnist',
        ),
    ],
)
def test_flags_that_do_not_go_together(arguments, said):
    with pytest.raises(OptionError) as caught:
        parse(arguments)
    assert str(caught.value) == said


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
            'trainers.export and trainers.embed and trainers.predict; --help lists them',
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


@pytest.mark.parametrize('command', ['trainers.embed', 'trainers.export'])
def test_a_required_flag_says_so(command):
    out = ['--out=e.npz'] if command == 'trainers.embed' else []
    with pytest.raises(OptionError) as caught:
        parse(out, command)
    assert (
        str(caught.value) == f'--ckpt_path: expected a value, {command} requires it. Received: none'
    )
    with pytest.raises(
        options.HelpRequested,
        match=r'--ckpt_path=\n .* \(required by export, embed and predict\)\n',
    ):
        parse(['--help'], command)
    assert parse(['--ckpt_path=output/0', *out], command).ckpt_path == 'output/0'


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
