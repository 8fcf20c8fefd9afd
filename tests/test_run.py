"""The commands as a user types them, on a tiny data set."""

import glob
import json
import os
import sys

import pytest

import toys
from gitloss.backend import tf
from toys import command, started
from trainers import run

# Another interpreter with the other TensorFlow, for the checkpoints that must cross over. `make
# test` sets it on the 3.7 leg.
PEER = os.environ.get('GITLOSS_PEER_PYTHON')

PICTURES = ('losses', 'distances', 'gradients', 'cosines', 'pairs', 'confusion')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """(options, output) of a finished toy run in a separate process."""
    folder = tmp_path_factory.mktemp('finished')
    settings = toys.options(folder, log_every=4, model='mnist_cnn')
    result = started(toys.flags_of(settings))
    assert result.returncode == 0, result.stderr
    return settings, result


def test_the_output_tree(finished):
    settings, _ = finished
    found = {
        os.path.relpath(os.path.join(folder, name), settings.run_dir)
        for folder, _, names in os.walk(settings.run_dir)
        for name in names
    }
    events = {name for name in found if name.startswith('events.out.tfevents.')}
    checkpoints = {
        os.path.join('ckpt', f'step-{step:08d}', name)
        for step in (4, 8, 12)
        for name in ('manifest.json', 'model.index', 'model.data-00000-of-00001')
    }
    assert (
        len(events) == 3
        and sum(name.endswith('.end') for name in events)
        == sum(name.endswith('.hparams') for name in events)
        == 1
    )
    pictures = {
        os.path.join('plots', name % step)
        for step in (4, 8, 12)
        for name in ('scatter-%06d.png', os.path.join('frames', 'frame-%08d.npz'))
    } | {
        os.path.join('plots', name)
        for name in ('scatter.gif', *(f'{name}.png' for name in PICTURES))
    }
    expected = (
        checkpoints
        | pictures
        | {
            'history.jsonl',
            'results.json',
            'report.html',
            'options.json',
            'train_0.log',
            'run.lock',
        }
    )
    assert expected <= found - events


def test_history_has_the_promised_columns(finished):
    with open(os.path.join(finished[0].run_dir, 'history.jsonl')) as file:
        rows = [json.loads(line) for line in file]
    assert [row['step'] for row in rows] == [4, 8, 12]
    for row in rows:
        assert list(row)[:9] == [
            'step',
            'train_loss',
            'train_acc',
            'valid_loss',
            'valid_acc',
            'inter_cls_dist',
            'intra_cls_dist',
            'images_per_sec',
            'seconds',
        ]
        assert row['inter_over_intra'] == row['inter_cls_dist'] / row['intra_cls_dist']
        assert row['seconds'] * row['images_per_sec'] == pytest.approx(4 * 16)


def test_results_say_all(finished):
    settings, _ = finished
    with open(os.path.join(settings.run_dir, 'results.json')) as file:
        results = json.load(file)
    assert results['options'] == settings.as_dict()
    assert results['versions']['tensorflow'] == tf.__version__
    assert results['final']['step'] == 12 and results['final']['test_images'] == 40
    assert results['best']['valid_acc'] == max(
        results['best']['valid_acc'], results['final']['valid_acc']
    )
    speed = results['throughput']
    assert speed['images_per_sec'] * speed['sec_per_step'] == pytest.approx(16)
    assert results['seconds']['total'] > 11 * speed['sec_per_step']


def test_event_file_holds_the_scalars_of_history(finished):
    settings, _ = finished
    found = {}
    for event in tf.train.summary_iterator(
        sorted(glob.glob(os.path.join(settings.run_dir, 'events.*')))[0]
    ):
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    with open(os.path.join(settings.run_dir, 'history.jsonl')) as file:
        rows = [json.loads(line) for line in file]
    for column, tag in (
        ('train_loss', 'train/loss'),
        ('valid_acc', 'valid/acc'),
        ('intra_cls_dist', 'distance/intra_cls_dist'),
    ):
        assert found[tag] == {row['step']: pytest.approx(row[column], rel=1e-6) for row in rows}
    # All numbers of a run are declared: none of a data set or of the centers is in the section run.
    assert {tag for tag in found if tag.startswith('run/')} == {
        'run/images_per_sec',
        'run/seconds',
        'run/options',
        'run/versions',
    }


def test_console_and_log_say_the_same(finished):
    settings, result = finished
    with open(os.path.join(settings.run_dir, 'train_0.log')) as file:
        logged = [line[20:] for line in file.read().splitlines()]
    assert logged == result.stderr.splitlines() and result.stdout == ''
    assert logged[0].startswith('Git loss ') and 'device cpu' in logged[0]
    assert logged[-1] == f'the run is in {settings.run_dir}'


def test_nothing_of_tensorflow_is_printed(finished):
    """No warnings and no messages of devices: each line is one of ours."""
    ours = ('Git loss', 'mnist:', 'this processor', 'step ', 'test ', 'the run is in')
    assert all(line.startswith(ours) for line in finished[1].stderr.splitlines())


def test_evaluate_gives_the_accuracy_the_run_wrote_down(finished):
    settings, _ = finished
    result = command(
        [
            '--ckpt_path=' + os.path.join(settings.run_dir, 'ckpt', 'step-00000012'),
            '--data_path=' + settings.data_path,
            '--batch_size=16',
        ],
        'trainers.evaluate',
    )
    with open(os.path.join(settings.run_dir, 'results.json')) as file:
        final = json.load(file)['final']
    measured = json.loads(result.stdout)
    assert measured['step'] == 12
    assert (measured['valid']['acc'], measured['test']['acc']) == (
        final['valid_acc'],
        final['test_acc'],
    )
    assert measured['valid']['loss'] == pytest.approx(final['valid_loss'], rel=1e-6)


@pytest.mark.skipif(not PEER, reason='GITLOSS_PEER_PYTHON names no second interpreter')
@pytest.mark.parametrize(
    'writer, reader', [(sys.executable, PEER), (PEER, sys.executable)], ids=['to peer', 'from peer']
)
def test_a_checkpoint_crosses_between_the_tensorflows(tmp_path, writer, reader):
    """Written by one version, evaluated by the other: the same validation accuracy, and losses
    equal within float32 rounding.
    """
    settings = toys.options(
        tmp_path,
        steps=60,
        update_centers=60,
        embedding_dim=8,
        learning_rate=0.003,
        model='mnist_cnn',
    )
    trained = started(toys.flags_of(settings), python=writer)
    assert trained.returncode == 0, trained.stderr
    with open(os.path.join(settings.run_dir, 'results.json')) as file:
        results = json.load(file)
    result = started(
        ['--ckpt_path=' + settings.run_dir, '--data_path=' + settings.data_path, '--batch_size=16'],
        'trainers.evaluate',
        reader,
    )
    measured = json.loads(result.stdout)
    assert measured['valid']['acc'] == results['final']['valid_acc']
    assert measured['valid']['loss'] == pytest.approx(results['final']['valid_loss'], rel=1e-4)


def test_performance_run_writes_no_pictures_and_measures_nothing(tmp_path, capsys):
    settings = toys.options(tmp_path, evaluate=False)
    assert run.main(toys.flags_of(settings)) == 0
    assert not os.path.exists(os.path.join(settings.run_dir, 'plots'))
    with open(os.path.join(settings.run_dir, 'history.jsonl')) as file:
        assert not any(
            'valid' in name or 'dist' in name for line in file for name in json.loads(line)
        )


def test_a_second_run_loses_nothing_of_the_first(tmp_path, capsys):
    settings = toys.options(tmp_path, steps=2, evaluate=False, resume='never')
    for _ in range(2):
        assert run.main(toys.flags_of(settings)) == 0
    assert os.path.exists(os.path.join(settings.run_dir + '.1', 'results.json'))
    assert settings.run_dir + '.1' in capsys.readouterr().err
