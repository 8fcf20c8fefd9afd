"""trainers.evaluate on other data than that of the training."""

import json
import os
import re
import shutil

import numpy as np
import pytest

import toys
from callbacks.checkpoint import Checkpoint
from gitloss import data
from gitloss.backend import tf
from trainers import checkpoints, devices, evaluate, export, run
from trainers.checkpoints import manifest as manifests
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


@pytest.mark.parametrize('evaluates', [True, False], ids=['measured', 'alone'])
def test_a_training_needs_training_images(tmp_path, capsys, evaluates):
    settings = toys.options(tmp_path, evaluate=evaluates)
    folder = part_of(settings.data_path, tmp_path / 'part', 't10k')
    assert run.main(toys.flags_of(settings) + ['--data_path=' + folder]) == 2
    assert capsys.readouterr().err.splitlines() == [
        'trainers.run: --data_path: expected a data set with the splits train. '
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


def forged(settings, folder, *keys_and_value):
    """A copy of the checkpoint whose manifest has another value, and a digest that fits."""
    path = os.path.join(str(folder), 'step-00000012')
    shutil.copytree(os.path.join(settings.run_dir, 'ckpt', 'step-00000012'), path)
    file_name = os.path.join(path, manifests.FILE)
    with open(file_name) as file:
        manifest = json.load(file)
    part = manifest
    for key in keys_and_value[:-2]:
        part = part[key]
    part[keys_and_value[-2]] = keys_and_value[-1]
    manifest['manifest_sha256'] = manifests.digest_of(manifest)
    with open(file_name, 'w') as file:
        json.dump(manifest, file)
    return path


@pytest.mark.parametrize(
    'keys_and_value, expected',
    [
        (('dataset', {}), 'facts of the data set: expected name, image_shape'),
        (('dataset', 'num_classes', 0), 'facts of the data set'),
        (('dataset', 'num_classes', 11), 'of this model. Received: .* of shape .*4.*, not .*11'),
        (('dataset', 'num_classes', 10**9), 'of this model. Received: .* of shape .*, not .*10000'),
        (('dataset', 'preprocessing', 'divisor', 1e-300), 'facts of the data set'),
        (('dataset', 'preprocessing', 'divisor', 1e300), 'facts of the data set'),
        (('options', 'embedding_dim', 3), 'of this model. Received: .* of shape .*2.*, not .*3'),
        (('options', 'embedding_dim', 10**9), '--embedding_dim: expected 1 to 65536'),
        (('options', 'model', 'x'), '--model: expected one of'),
        (('options', 'seed', 'x'), '--seed: expected a whole number'),
    ],
)
def test_a_forged_manifest_is_one_line_that_names_the_checkpoint(
    trained, tmp_path, capsys, keys_and_value, expected
):
    """Evaluation and export restore only tensors of the shapes that the model has. Distances alone,
    of images of another number of classes, need none whose shape has that number.
    """
    settings, _ = trained
    path = forged(settings, tmp_path, *keys_and_value)
    flags = ['--data_path=' + settings.data_path, '--device=cpu']
    for main, more in ((evaluate.main, flags), (export.main, [])):
        if main is evaluate.main and 'num_classes' in keys_and_value and 'shape' in expected:
            continue
        assert main(['--ckpt_path=' + path] + more) == 2
        out, err = capsys.readouterr()
        said = [line for line in err.splitlines() if 'no loss and no accuracy' not in line]
        assert out == '' and len(said) == 1 and path in said[0], err
        assert re.search(expected, said[0]), said
    assert os.listdir(str(tmp_path)) == ['step-00000012']


@pytest.mark.parametrize('init', [False, True])
def test_weights_of_other_shapes_start_no_training(trained, tmp_path, capsys, init):
    """TensorFlow would take a resource variable of any shape."""
    settings, _ = trained
    found = checkpoints.find(settings.run_dir, '--ckpt_path')
    with tf.Graph().as_default(), tf.Session() as session:
        wider = {
            name: tf.Variable(tf.zeros([2 * size for size in shape]), use_resource=True)
            for name, shape in checkpoints.variables(found).items()
        }
        session.run(tf.global_variables_initializer())
        kept = {
            name: found.manifest[name]
            for name in checkpoints.TO_CONTINUE + ('metrics', 'best', 'versions')
        }
        (tmp_path / 'run').mkdir()
        store = checkpoints.CheckpointStore(str(tmp_path / 'run' / 'ckpt'))
        path = store.save(session, tf.train.Saver(wider), 12, kept)
    flags = toys.flags_of(settings) + ['--steps=13']
    run_dir = tmp_path / ('new' if init else 'run')
    flags += [f'--exp_save_dir={run_dir}'] + [f'--init_checkpoint={path}'] * init
    assert run.main(flags) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and (path in lines[0]) and 'shape' in lines[0], lines
