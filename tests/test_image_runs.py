"""Whole runs on folders of images: what they write, what they refuse, and how they resume."""

import json
import os
import shutil

import pytest

import faces
import toys
from gitloss import data
from trainers import evaluate, export, loading, run


def trained(settings, *more):
    return run.main(toys.flags_of(settings) + list(more))


def path_in(settings, *names):
    return os.path.join(settings.run_dir, *names)


def text_of(settings, name):
    with open(path_in(settings, name), encoding='utf-8') as file:
        return file.read()


def results_of(settings):
    return json.loads(text_of(settings, 'results.json'))['final']


def measured(settings, folder, capsys):
    """(the object that trainers.evaluate prints of the newest checkpoint, its log)."""
    newest = sorted(os.listdir(path_in(settings, 'ckpt')))[-1]
    flags = [f'--ckpt_path={path_in(settings, "ckpt", newest)}']
    flags += [f'--data_path={folder}', '--batch_size=16']
    capsys.readouterr()
    assert evaluate.main(flags + ['--device=cpu']) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def empty(settings, identity, number):
    """Makes an image of the data an empty file. Returns its path."""
    path = os.path.join(settings.data_path, faces.name(identity), f'{number:03d}.png')
    open(path, 'wb').close()
    return path


def test_a_run_its_continuation_its_evaluation_and_its_export(tmp_path, capsys):
    """One of 40 images is broken. The continuation and the evaluation leave it out as well,
    although they are not told how many are accepted.
    """
    settings = faces.options(tmp_path, max_broken=1, steps=8)
    broken = empty(settings, 0, 4)
    assert trained(settings) == 0
    err = capsys.readouterr().err
    assert '1 of 40 images are broken and left out, see broken.txt' in err
    assert 'folder: 31 training, 4 validation, 4 test images of 16x16x3, 4 classes' in err
    assert text_of(settings, 'labels.txt').splitlines() == list(map(faces.name, range(4)))
    left_out = text_of(settings, 'broken.txt')
    assert f'\n{broken}\texpected an image. Received: an empty file\t4\n' in left_out
    lists = [text_of(settings, f'{part}.list') for part in ('train', 'valid', 'test')]
    assert [text.count('\n') for text in lists] == [31, 4, 4] and broken not in ''.join(lists)

    assert trained(settings, '--steps=12', '--max_broken=0') == 0
    err = capsys.readouterr().err
    assert 'continuing at step 8 of 12' in err and 'checked' not in err
    assert text_of(settings, 'broken.txt') == left_out
    assert lists == [text_of(settings, f'{part}.list') for part in ('train', 'valid', 'test')]

    found, err = measured(settings, settings.data_path, capsys)
    assert 'checked' not in err
    assert found == measured(settings, '', capsys)[0]  # the images of the run
    assert found['test']['acc'] == results_of(settings)['test_acc']
    assert found['valid']['acc'] == results_of(settings)['valid_acc']

    assert export.main([f'--ckpt_path={settings.run_dir}']) == 0
    assert text_of(settings, 'export/labels.txt') == text_of(settings, 'labels.txt')
    assert json.loads(text_of(settings, 'export/gitloss.json'))['labels'] == 'labels.txt'


def test_identities_that_are_no_classes_have_distances_alone(tmp_path, capsys):
    faces.write(tmp_path / 'faces', 8, 4)
    fractions = dict(valid_fraction=0.25, test_fraction=0.25)
    settings = faces.options(tmp_path, split='identity', best='valid_inter_over_intra', **fractions)
    assert trained(settings) == 0
    final = results_of(settings)
    distances = ['inter_cls_dist', 'inter_over_intra', 'intra_cls_dist']
    for part in ('valid', 'test'):
        others = {'test_images', 'test_eer', 'test_auc'}
        found = sorted(name for name in final if name.startswith(part) and name not in others)
        assert found == [f'{part}_{name}' for name in distances]
    assert not os.path.exists(path_in(settings, 'plots', 'confusion.png'))
    assert os.path.exists(path_in(settings, 'plots', 'pairs.png'))
    assert json.loads(text_of(settings, 'results.json'))['best_by'] == 'valid_inter_over_intra'
    found, err = measured(settings, settings.data_path, capsys)
    assert 'valid: only distances, some of its identities are no classes' in err
    assert sorted(found['valid']) == distances
    assert found['valid']['intra_cls_dist'] == pytest.approx(final['valid_intra_cls_dist'], 1e-5)


@pytest.mark.parametrize('has_test', [True, False])
def test_a_run_without_validation_measures_the_rest(tmp_path, capsys, has_test):
    settings = faces.options(tmp_path, valid_fraction=0, test_fraction=0.2 * has_test)
    assert trained(settings) == 0
    assert ': no ' not in capsys.readouterr().err
    final = results_of(settings)
    assert 'intra_cls_dist' in final and not any(name.startswith('valid') for name in final)
    assert ('test_acc' in final) == has_test
    assert os.path.exists(path_in(settings, 'report.html'))
    drawn = ['cosines.png', 'distances.png', 'gradients.png', 'losses.png']
    assert sorted(os.listdir(path_in(settings, 'plots'))) == drawn
    assert len(os.listdir(path_in(settings, 'ckpt'))) == 3
    found, _ = measured(settings, settings.data_path, capsys)
    assert found['valid'] is None and (found['test'] is None) != has_test


def test_without_validation_nothing_can_watch_it(tmp_path, capsys):
    settings = faces.options(tmp_path, valid_fraction=0, early_stopping=2)
    assert trained(settings) == 2
    assert '--monitor: expected a metric that is declared' in capsys.readouterr().err


def test_evaluation_on_other_people(tmp_path, capsys):
    """Classes keep their labels whatever the order of the folders: images of two of the four
    classes have losses, and with a stranger among them distances alone.
    """
    settings = faces.options(tmp_path, steps=4)
    assert trained(settings) == 0
    known = faces.write(tmp_path / 'known', [1, 3], 10)
    found, err = measured(settings, known, capsys)
    assert 'acc' in found['test'] and 'only distances' not in err
    strangers = faces.write(tmp_path / 'strangers', [0, 3, 9], 10)
    found, err = measured(settings, strangers, capsys)
    assert 'acc' not in found['test'] and 'test: only distances' in err
    dataset = data.load(
        'folder',
        known,
        data.ImageSettings((16, 16, 3), classes=list(map(faces.name, range(4)))),
    )
    assert set(dataset.test.labels) == {1, 3}


def test_hundreds_of_coloured_people_are_drawn(tmp_path, capsys):
    """210 classes, more than TensorBoard's confusion matrix shows, in 64 dimensions: every picture
    is drawn, and none of them with a warning.
    """
    faces.write(tmp_path / 'faces', 210, 5)
    settings = faces.options(tmp_path, embedding_dim=64, steps=4)
    assert trained(settings) == 0
    err = capsys.readouterr().err
    assert 'no picture' not in err and 'TensorBoard: no' not in err, err
    drawn = {'confusion.png', 'distances.png', 'losses.png', 'pairs.png', 'scatter.gif'}
    drawn |= {'gradients.png', 'cosines.png'}
    assert drawn < set(os.listdir(path_in(settings, 'plots')))
    assert os.path.exists(path_in(settings, 'projector', 'sprite.png'))


@pytest.mark.parametrize(
    'identities, flags, said',
    [
        ([], [], 'faces: expected images. Received: none'),
        (
            [5],
            [],
            '--data_path: expected two identities or more with --min_images=1 and --max_classes=0. '
            'Received: 1; the largest of 1 has 3 images',
        ),
        (
            [0, 1],
            ['--data_path='],
            '--data_path: expected the images of --dataset=folder. Received: none',
        ),
        (
            [0, 1],
            ['--min_images=4'],
            '--data_path: expected two identities or more with --min_images=4 and --max_classes=0.',
        ),
    ],
)
def test_data_that_cannot_be_trained_on_leave_no_run(tmp_path, capsys, identities, flags, said):
    os.makedirs(str(tmp_path / 'faces'))
    faces.write(tmp_path / 'faces', identities, 3)
    settings = faces.options(tmp_path)
    assert trained(settings, *flags) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith('trainers.run: ') and said in lines[0]
    assert not os.path.exists(settings.run_dir)


_REMOVER = """
import shutil
from callbacks.base import Callback


class Remover(Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == {step}:
            for number in range(4):
                shutil.rmtree({folder!r} + f'/person {{number:03d}}')


def remover(options):
    return Remover()
"""


@pytest.mark.parametrize('step', [5, 8], ids=['in a step', 'in a sweep'])
def test_files_that_vanish_end_the_run_in_one_line(tmp_path, capsys, step):
    """The checkpoint of step 4 stays. At step 8 the sweep of the measurement finds them gone."""
    settings = faces.options(tmp_path, steps=40)
    module = tmp_path / 'remover.py'
    module.write_text(_REMOVER.format(step=step, folder=settings.data_path))
    assert trained(settings, f'--callbacks={module}:remover') == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith('trainers.run: step '), line
    assert os.path.join(settings.data_path, 'person 00') in line and '.png' in line, line
    assert 'Traceback' not in line, line
    assert os.listdir(path_in(settings, 'ckpt')) == ['step-00000004']


def test_every_worker_leaves_out_the_same(tmp_path):
    """A worker has no folder of the run: it checks, and finds what the chief finds, or finds in the
    folder of a run that it continues.
    """
    settings = faces.options(tmp_path, max_broken=2, steps=4)
    empty(settings, 1, 0)
    empty(settings, 2, 9)
    assert trained(settings) == 0
    elsewhere = shutil.copytree(settings.data_path, str(tmp_path / 'copy'))
    chief, worker = (
        loading.dataset_to_train(each)
        for each in (
            settings,
            faces.options(
                tmp_path, max_broken=2, exp_save_dir=str(tmp_path / 'new'), data_path=elsewhere
            ),
        )
    )
    assert chief.facts() == worker.facts() and len(chief.train) == 30
