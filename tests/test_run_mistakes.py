"""Mistakes in the commands as a user types them: one line, status 2, no run."""

import os

import pytest

import toys
from toys import command
from trainers import options as options_module
from trainers import run


def _truncate(folder):
    path = os.path.join(folder, 'train-images-idx3-ubyte.gz')
    with open(path, 'r+b') as file:
        file.truncate(os.path.getsize(path) // 2)


def _corrupt(folder):
    with open(os.path.join(folder, 'train-labels-idx1-ubyte.gz'), 'wb') as file:
        file.write(b'no gzip at all')


def _other_counts(folder):
    images, _ = toys.patterns(20)
    import gzip

    with gzip.open(os.path.join(folder, 'train-images-idx3-ubyte.gz'), 'wb') as file:
        file.write(toys.idx_bytes(images))


def _remove(folder):
    for name in os.listdir(folder):
        os.remove(os.path.join(folder, name))


@pytest.mark.parametrize(
    'damage, said',
    [
        (_truncate, 'train-images-idx3-ubyte.gz: expected a complete gzip file'),
        (_corrupt, 'train-labels-idx1-ubyte.gz: expected a complete gzip file'),
        (_other_counts, 'expected as many labels as images. Received: 20 images, 120 labels'),
        (_remove, '--data_path: expected one of train-images-idx3-ubyte'),
    ],
)
def test_bad_data_is_one_line_and_leaves_no_run(tmp_path, capsys, damage, said):
    settings = toys.options(tmp_path)
    damage(settings.data_path)
    assert run.main(toys.flags_of(settings)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith('trainers.run: ') and said in lines[0]
    assert not os.path.exists(settings.run_dir)


@pytest.mark.parametrize(
    'change, said',
    [
        ({'model': 'vgg'}, '--model: expected one of inception_resnet_v1, iresnet100, '),
        ({'model': 'applications:VGG'}, '--model=applications:NAME: expected one of '),
        ({'augment': 'turn'}, '--augment: expected flip, crop[:1 to 1024 pixels], brightness[:up '),
        (
            {'head': 'sphere'},
            "--head: expected one of arcface, cosface, softmax. Received: 'sphere'",
        ),
        (
            {'dataset': 'cifar'},
            "--dataset: expected one of folder, list, mnist, recordio, tfrecord. Received: 'cifar'",
        ),
        (
            {'exp_save_dir': '/dev/null/run'},
            '--exp_save_dir: expected a folder that can be written. Received: ',
        ),
        (
            {'data_path': '/no/such/folder'},
            '--data_path: expected a folder of IDX files or an npz file. '
            "Received: '/no/such/folder'",
        ),
    ],
)
def test_bad_options_are_one_line_and_leave_no_run(tmp_path, capsys, change, said):
    base = toys.options(tmp_path).as_dict()
    settings = options_module.Options(**dict(base, **change))
    assert run.main(toys.flags_of(settings)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not os.path.exists(base['exp_save_dir'])


def test_a_mistake_ends_with_status_2_and_no_traceback():
    result = command(['--stepz=3'])
    assert (result.returncode, result.stdout) == (2, '')
    assert result.stderr == (
        'trainers.run: --stepz: expected a known flag, --steps perhaps. Received: an unknown one; '
        '--help lists all\n'
    )


def test_help_reads_without_tensorflow():
    result = command(['--help'])
    assert result.returncode == 0 and '--lambda_g=1' in result.stdout and result.stderr == ''


def test_evaluate_names_what_is_missing(tmp_path):
    result = command([f'--ckpt_path={tmp_path}'], 'trainers.evaluate')
    assert result.returncode == 2
    assert result.stderr == (
        'trainers.evaluate: --ckpt_path: expected a checkpoint, or a folder with checkpoints. '
        f"Received: '{tmp_path}'\n"
    )
