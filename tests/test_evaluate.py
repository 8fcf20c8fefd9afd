"""trainers.evaluate on other data than that of the training."""

import json
import os
import shutil

import numpy as np
import pytest

import toys
from callbacks.checkpoint import Checkpoint
from gitloss import data
from trainers import checkpoints, devices, evaluate, run
from trainers.engine.runtime import evaluation
from trainers.engine.trainer import Trainer

DISTANCES = ['inter_cls_dist', 'inter_over_intra', 'intra_cls_dist']


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """(Options, Dataset) of a toy run of 12 steps on 4 classes, with a checkpoint."""
    settings = toys.options(tmp_path_factory.mktemp('trained'))
    dataset = data.load('mnist', settings.data_folder)
    Trainer(settings, dataset, [Checkpoint()], devices.choose(settings)).fit()
    return settings, dataset


def evaluated(settings, folder, capsys):
    """(output, log) of the command."""
    flags = ['--ckpt_path=' + settings.run_dir, f'--data_path={folder}', '--batch_size=16']
    assert evaluate.main(flags + ['--device=cpu']) == 0
    out, log = capsys.readouterr()
    return json.loads(out), log


def part_of(folder, target, prefix):
    """Copies the files of one part, `train` or `t10k`."""
    os.makedirs(str(target))
    for name in os.listdir(folder):
        if name.startswith(prefix):
            shutil.copy(os.path.join(folder, name), str(target))
    return str(target)


def distances(settings, source):
    """The distances of the embeddings of all images of a Source, by definition, in float64."""
    checkpoint = checkpoints.find(settings.run_dir, '--ckpt_path')
    with evaluation(checkpoint, settings, devices.choose(settings)) as handle:
        rows = list(handle.sweep(source))
    points = np.concatenate([row[0] for row in rows]).astype(np.float64)
    classes = [points[source.labels == label] for label in np.unique(source.labels)]
    means = [own.mean(axis=0) for own in classes]
    intra = np.mean(
        [np.mean(np.linalg.norm(own - mean, axis=1)) for own, mean in zip(classes, means)]
    )
    inter = np.mean([np.linalg.norm(one - two) for i, one in enumerate(means) for two in means[:i]])
    return {'intra_cls_dist': intra, 'inter_cls_dist': inter, 'inter_over_intra': inter / intra}


def test_the_distances_are_those_of_the_split(trained, capsys):
    settings, dataset = trained
    found, log = evaluated(settings, settings.data_path, capsys)
    for name, source in (('valid', dataset.valid), ('test', dataset.test)):
        expected = distances(settings, source)
        assert {key: found[name][key] for key in DISTANCES} == pytest.approx(expected, rel=1e-6)
        assert {'loss', 'softmax_loss', 'center_loss', 'git_loss', 'acc'} < set(found[name])
    assert 'no loss' not in log


@pytest.mark.parametrize('prefix, missing', [('t10k', ['valid']), ('train', ['test'])])
def test_splits_without_files_are_none(trained, tmp_path, capsys, prefix, missing):
    """The metrics of the other splits do not change."""
    settings, _ = trained
    whole, _ = evaluated(settings, settings.data_path, capsys)
    found, _ = evaluated(settings, part_of(settings.data_path, tmp_path / 'part', prefix), capsys)
    assert found == dict(whole, **{name: None for name in missing})


def test_other_classes_have_distances_alone(trained, tmp_path, capsys):
    """The training knew four of the six classes; images of the two others are noise."""
    settings, dataset = trained
    folder = toys.write_mnist(tmp_path / 'six', classes=6)
    found, log = evaluated(settings, folder, capsys)
    six = data.load('mnist', folder)
    assert six.spec.num_classes == 6
    for name, source in (('valid', six.valid), ('test', six.test)):
        assert found[name] == pytest.approx(distances(settings, source), rel=1e-6)
    assert 'no loss and no accuracy, only distances of embeddings' in log
    assert 'the checkpoint has 4 classes, the data 6' in log


def test_images_of_another_shape_are_refused_in_one_line(trained, tmp_path, capsys):
    settings, _ = trained
    arrays = {
        'x_test': np.zeros((10, 9, 8), np.uint8),
        'y_test': np.arange(10, dtype=np.uint8) % 4,
    }
    np.savez(str(tmp_path / 'mnist.npz'), **arrays)
    flags = ['--ckpt_path=' + settings.run_dir, f'--data_path={tmp_path}', '--device=cpu']
    assert evaluate.main(flags) == 2
    assert capsys.readouterr().err.splitlines() == [
        'trainers.evaluate: --data_path: expected images of the shape that '
        f'{settings.run_dir}/ckpt/step-00000012 was trained on, (8, 8, 1). Received: (9, 8, 1)'
    ]


@pytest.mark.parametrize(
    'evaluates, wanted', [(True, 'train, valid'), (False, 'train')], ids=['measured', 'alone']
)
def test_a_training_needs_training_images(tmp_path, capsys, evaluates, wanted):
    settings = toys.options(tmp_path, evaluate=evaluates)
    folder = part_of(settings.data_path, tmp_path / 'part', 't10k')
    assert run.main(toys.flags_of(settings) + ['--data_path=' + folder]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f'trainers.run: --data_path: expected a data set with the splits {wanted}. '
        'Received: one with test'
    ]
    assert not os.path.exists(settings.run_dir)
    with pytest.raises(ValueError, match='the splits train. Received: one with test$'):
        dataset = data.load('mnist', folder)
        Trainer(settings, dataset, [], devices.choose(settings))


def test_a_training_without_test_images_ends_without_their_numbers(tmp_path, capsys):
    settings = toys.options(tmp_path, steps=4)
    folder = part_of(settings.data_path, tmp_path / 'part', 'train')
    assert run.main(toys.flags_of(settings) + ['--data_path=' + folder]) == 0
    assert '108 training, 12 validation, 0 test images of 8x8x1' in capsys.readouterr().err
    with open(os.path.join(settings.run_dir, 'results.json')) as file:
        final = json.load(file)['final']
    assert 'valid_acc' in final and not any(name.startswith('test_') for name in final)
    assert os.path.exists(os.path.join(settings.run_dir, 'report.html'))
