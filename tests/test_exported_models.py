"""trainers.embed and trainers.predict with exported models in the place of a run."""

import json
import os
import shutil

import numpy as np
import pytest

import exports
import portraits
from gitloss.data.embedding_files import read_npz
from trainers import embed, export, predict
from trainers.exporting import packages
from trainers.exporting.formats import FORMATS
from trainers.exporting.runtimes import open_model

FLOAT = ('saved_model', 'gitloss.pb', 'gitloss.onnx', 'gitloss.tflite')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """(folder of the images of four people, folder of a run with an export in all formats)."""
    images, out = portraits.trained(tmp_path_factory.mktemp('exported'))
    with exports.forked_parity():
        assert export.main([f'--ckpt_path={out}', '--format=all', '--export_batch=5']) == 0
    return images, out


def embedded(path, images, out, *flags):
    """(names, embeddings) that trainers.embed writes."""
    given = [f'--ckpt_path={path}', f'--data_path={images}', f'--out={out}', '--batch_size=7']
    assert embed.main([*given, *flags]) == 0
    return read_npz(out)


@pytest.fixture(scope='module')
def expected(trained, tmp_path_factory):
    """(names, embeddings) by the run itself."""
    folder = tmp_path_factory.mktemp('embedded')
    return embedded(trained[1], trained[0], str(folder / 'e.npz'), '--flip')


@pytest.mark.parametrize('name', [each.file for each in FORMATS.values()] + [''])
def test_an_exported_model_embeds_as_its_run_does(trained, expected, tmp_path, name):
    """24 images and their mirror images, in batches of 7 (of 5 by the frozen graph). The folder of
    an export stands for its first file, the SavedModel.
    """
    path = os.path.join(trained[1], 'export', name)
    names, found = embedded(path, trained[0], str(tmp_path / 'e.npz'), '--flip')
    assert names == expected[0]
    difference = np.linalg.norm(found - expected[1], axis=1) / np.linalg.norm(expected[1], axis=1)
    bound = {'gitloss_float16.tflite': 1e-2, 'gitloss_int8.tflite': 0.3}.get(name, 1e-5)
    assert difference.max() < bound


def told(capsys, path, *arguments):
    """(exit status, the objects printed)."""
    capsys.readouterr()
    status = predict.main([f'--ckpt_path={path}', *arguments])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize('name', FLOAT)
def test_an_exported_model_predicts_as_its_run_does_without_centers(trained, capsys, name):
    paths = [f'{trained[0]}/{who}/1.png' for who in ('cy', 'ann', 'dee')]
    (_, found), (_, rows) = (
        told(capsys, path, *paths)
        for path in (os.path.join(trained[1], 'export', name), trained[1])
    )
    assert [row['class'] for row in found] == ['cy', 'ann', 'dee']
    for row, other in zip(found, rows):
        assert set(other) - set(row) == {'nearest_center', 'center_distance'}
        assert row['confidence'] == pytest.approx(other['confidence'], rel=1e-4)


def test_a_file_of_float32_shares_the_gallery_of_its_run(trained, tmp_path, capsys):
    """int8 has a gallery of its own: its embeddings differ."""
    images, out = trained
    gallery, probe = f'--gallery={tmp_path / "g.npz"}', f'{images}/bo/3.png'
    assert told(capsys, out, gallery, 'enroll', images)[0] == 0
    _, (row,) = told(capsys, f'{out}/export/gitloss.tflite', gallery, 'identify', probe)
    assert row['person'] == 'bo' and row['score'] == pytest.approx(1, abs=1e-5)
    status = predict.main(
        [f'--ckpt_path={out}/export/gitloss_int8.tflite', gallery, 'identify', probe]
    )
    said = capsys.readouterr().err
    assert status == 2 and 'of --ckpt_path and of the same --align' in said
    assert said.count('\n') == 1


@pytest.fixture(scope='module')
def alone(trained):
    """The folder of an export of embeddings alone, in all formats."""
    out = f'{trained[1]}-alone'
    flags = [f'--ckpt_path={trained[1]}', f'--export_dir={out}', '--format=all', '--noclassifier']
    with exports.forked_parity():
        assert export.main(flags) == 0
    return out


@pytest.mark.parametrize('name', [each.file for each in FORMATS.values()])
def test_an_export_without_classifier_embeds_and_names_no_classes(
    trained, alone, expected, tmp_path, capsys, name
):
    """Its embeddings are those of the run, and its people those of a gallery."""
    path, gallery = os.path.join(alone, name), f'--gallery={tmp_path / "g.npz"}'
    _, found = embedded(path, trained[0], str(tmp_path / 'e.npz'), '--flip')
    difference = np.linalg.norm(found - expected[1], axis=1) / np.linalg.norm(expected[1], axis=1)
    bound = {'gitloss_float16.tflite': 1e-2, 'gitloss_int8.tflite': 0.3}.get(name, 1e-5)
    assert difference.max() < bound
    assert told(capsys, path, gallery, 'enroll', trained[0])[0] == 0
    _, (row,) = told(capsys, path, gallery, 'identify', f'{trained[0]}/bo/3.png')
    assert row['person'] == 'bo'
    line = f'{path}: expected an export with logits, which names classes. Received: embeddings'
    assert refused(capsys, path, f'{trained[0]}/bo/3.png') == f'trainers.predict: {line}\n'


def test_an_export_without_classifier_describes_embeddings_alone(trained, alone):
    """Labels would name the logits. The frozen graph has the network of the run, without PReLU and
    class weights: less bytes.
    """
    with open(f'{alone}/gitloss.json') as file:
        described = json.load(file)
    assert [each['name'] for each in described['outputs']] == ['embeddings']
    assert described['labels'] is None and not os.path.exists(f'{alone}/labels.txt')
    assert '--out_nodes="embeddings:0"' in described['atc']
    for each in described['formats'].values():
        names = ('equal_predictions', 'accuracy', 'checkpoint_accuracy')
        assert [each['parity'][name] for name in names] == [None] * 3
    with open(f'{alone}/MODEL.md') as file:
        assert 'Outputs: `embeddings`.\n' in file.read()
    sizes = [os.path.getsize(f'{folder}/gitloss.pb') for folder in (alone, f'{trained[1]}/export')]
    assert sizes[0] < sizes[1]


def test_without_the_files_beside_it_classes_are_numbers(trained, tmp_path, capsys):
    path = str(tmp_path / 'gitloss.tflite')
    shutil.copy(f'{trained[1]}/export/gitloss.tflite', path)
    _, (row,) = told(capsys, path, f'{trained[0]}/cy/1.png')
    assert row['class'] == '2'


def refused(capsys, path, *arguments):
    """The one line of a refusal."""
    capsys.readouterr()
    assert predict.main([f'--ckpt_path={path}', *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == '' and said.err.count('\n') == 1
    return said.err


@pytest.mark.parametrize('name', ['saved_model', 'gitloss.pb', 'gitloss.onnx', 'gitloss.tflite'])
@pytest.mark.parametrize('damage', [b'', b'not a model', None])
def test_a_damaged_file_is_one_line(trained, tmp_path, capsys, name, damage):
    """Empty, other bytes, or the first half of its own."""
    path = str(tmp_path / name)
    source = os.path.join(trained[1], 'export', name)
    file = path
    if os.path.isdir(source):
        shutil.copytree(source, path)
        file = os.path.join(path, 'saved_model.pb')
        source = os.path.join(source, 'saved_model.pb')
    with open(source, 'rb') as whole, open(file, 'wb') as other:
        content = whole.read()
        other.write(content[: len(content) // 2] if damage is None else damage)
    said = refused(capsys, path, f'{trained[0]}/cy/1.png')
    assert f'{path}: expected a whole model with embeddings' in said


def test_a_file_that_is_not_the_described_one_is_refused(trained, tmp_path, capsys):
    folder = str(tmp_path / 'export')
    shutil.copytree(f'{trained[1]}/export', folder)
    shutil.copy(f'{folder}/gitloss_int8.tflite', f'{folder}/gitloss.tflite')
    image = f'{trained[0]}/cy/1.png'
    said = refused(capsys, f'{folder}/gitloss.tflite', image)
    assert 'gitloss.tflite: expected the SHA-256 ' in said and 'as in gitloss.json' in said
    with open(f'{folder}/gitloss.json', 'w') as file:
        file.write('{"formats": []}')
    said = refused(capsys, f'{folder}/gitloss.onnx', image)
    assert 'gitloss.json: expected what trainers.export writes. Received: ' in said


def test_mistakes_are_one_line(trained, here, monkeypatch, capsys):
    path, image = f'{trained[1]}/export/gitloss.onnx', f'{trained[0]}/cy/1.png'
    said = refused(capsys, 'nowhere.onnx', image)
    assert 'nowhere.onnx' in said
    said = refused(capsys, path, 'nowhere.png')
    assert 'nowhere.png' in said
    said = refused(capsys, path, image, '--device=gpu')
    assert '--device: expected a checkpoint: exported models run on the CPU. Received: gpu' in said
    find = packages.importlib.util.find_spec
    monkeypatch.setattr(
        packages.importlib.util,
        'find_spec',
        lambda name: None if name == 'onnxruntime' else find(name),
    )
    said = refused(capsys, path, image)
    assert 'onnxruntime to be installed. Received: no onnxruntime; pip install ".[export]"' in said


def test_images_of_other_channels_are_one_line(trained):
    with open_model(f'{trained[1]}/export/gitloss.tflite', 2) as model:
        with pytest.raises(ValueError, match=r'the shape \(16, 16, 3\). Received: \(16, 16, 1\)'):
            model(['embeddings'], np.zeros((2, 16, 16, 1), np.uint8))
