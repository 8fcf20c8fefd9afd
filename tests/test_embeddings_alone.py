"""Embeddings need the network of a checkpoint: its class weights, the slots and the centers, which
grow with the number of classes, are neither built nor read.
"""

import json
import os
import shutil

import numpy as np
import pytest

import portraits
import toys  # noqa: F401 - enters the network `toy`
from gitloss.backend import tf
from gitloss.data.embedding_files import read_npz
from trainers import checkpoints, devices, embed, evaluate, export, predict, run
from trainers.engine import embedding
from trainers.engine.inference import Inference
from trainers.exporting import writing

KINDS = {
    'softmax': '--head=softmax --optimizer=momentum',
    'arcface': '--head=arcface',
    'softmax in shards': '--head=softmax --shard_classes --class_shards=2',
    'cosface in shards': '--head=cosface --shard_classes --optimizer=momentum',
}


def trained(folder, flags):
    """(folder of the images of four people, folder of a run on them)."""
    images, out = portraits.write(folder / 'faces', portraits.PEOPLE, 6), str(folder / 'run')
    common = '--dataset=folder --image_size=16 --model=toy --embedding_dim=4 --steps=3'
    common += ' --batch_size=8 --update_centers=3 --noevaluate --device=cpu'
    paths = [f'--data_path={images}', f'--exp_save_dir={out}']
    assert run.main([*common.split(), *flags.split(), *paths]) == 0
    portraits.write(folder / 'others', ('eve', 'flo'), 4)
    with open(str(folder / 'pairs.txt'), 'w') as file:
        for number in range(4):
            file.write(f'ann/{number} ann/{number + 1} 1\nann/{number} cy/{number} 0\n')
    return images, out


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """As `trained`, with a plain softmax."""
    return trained(tmp_path_factory.mktemp('plain'), KINDS['softmax'])


def own_tensors(path):
    """The bytes of the tensors that the embeddings are a function of, in a checkpoint."""
    found = checkpoints.read(path)
    with tf.Graph().as_default():
        net = Inference(
            checkpoints.options_of(found), checkpoints.spec_of(found), 1, classifier=False
        )
        names = [weight.op.name for weight in net.weights]
    return {name: checkpoints.value(found, name).tobytes() for name in names}


def invert(path, kept):
    """Inverts every byte of the tensors in a checkpoint, except for the texts `kept`. Returns how
    many.
    """
    inverted = 0
    for name in (name for name in os.listdir(path) if '.data-' in name):
        with open(os.path.join(path, name), 'rb') as file:
            content = np.frombuffer(file.read(), np.uint8)
        is_kept = np.zeros(len(content), bool)
        for text in kept:
            place = content.tobytes().find(text)
            while place >= 0:
                is_kept[place : place + len(text)] = True
                place = content.tobytes().find(text, place + 1)
        with open(os.path.join(path, name), 'wb') as file:
            file.write(np.where(is_kept, content, ~content).tobytes())
        inverted += int((~is_kept).sum())
    return inverted


def results(images, out, folder, capsys):
    """What the commands give that need the embeddings alone."""
    folder.mkdir()
    where, cpu = f'--ckpt_path={out}', '--device=cpu'
    pairs = [f'--pairs={images}/../pairs.txt', f'--pairs_path={images}']
    gallery, others = f'--gallery={folder}/g.npz', f'--data_path={images}/../others'
    given = [f'--data_path={images}', f'--out={folder}/e.npz']
    assert embed.main([where, cpu, *given]) == 0
    assert predict.main([where, cpu, gallery, 'enroll', images]) == 0
    assert export.main([where, '--noclassifier', f'--export_dir={folder}/export']) == 0
    capsys.readouterr()
    found = [read_npz(f'{folder}/e.npz'), read_npz(f'{folder}/g.npz')]
    told = []
    for main, flags in (
        (evaluate.main, pairs),
        (evaluate.main, [others]),
        (predict.main, [gallery, 'identify', f'{images}/bo/3.png']),
        (predict.main, ['verify', f'{images}/bo/3.png', f'{images}/cy/3.png']),
    ):
        assert main([where, cpu, *flags]) == 0
        told.append(json.loads(capsys.readouterr().out))
    with open(f'{folder}/export/gitloss.pb', 'rb') as file:
        return [(names, rows.tobytes()) for names, rows in found], told, file.read()


@pytest.mark.usefixtures('forked_parity')
@pytest.mark.parametrize('kind', KINDS)
def test_all_that_grows_with_the_classes_may_be_damaged(tmp_path, capsys, kind):
    """Every byte of class weights, slots, centers and their counts is inverted: embeddings, figures
    of pairs, distances of other people, galleries and an export are those of the whole checkpoint,
    to the last bit. Whatever needs the others ends with one line.
    """
    images, out = trained(tmp_path, KINDS[kind])
    before = results(images, out, tmp_path / 'before', capsys)
    (path,) = [os.path.join(out, 'ckpt', name) for name in os.listdir(f'{out}/ckpt')]
    inverted = invert(path, own_tensors(path).values())
    assert inverted > 4 * (4 + 1) * 4  # class weights and their counts, of 4 classes
    after = results(images, out, tmp_path / 'after', capsys)
    assert after == before
    for main, flags in (
        (evaluate.main, ['--device=cpu']),
        (predict.main, ['--device=cpu', f'{images}/bo/3.png']),
        (export.main, []),
    ):
        assert main([f'--ckpt_path={out}', *flags]) == 2
        said = capsys.readouterr().err
        assert said.count('\n') == 1 and f'{path}: expected a checkpoint of this model' in said
        assert 'Checksum does not match' in said


@pytest.mark.parametrize('place', [0, -1])
def test_one_wrong_bit_in_the_network_is_found(plain, tmp_path, capsys, place):
    """In the first or the last byte of the embedding layer. TensorFlow compares what it reads with
    its checksums.
    """
    path = str(tmp_path / 'step-00000003')
    shutil.copytree(os.path.join(plain[1], 'ckpt', 'step-00000003'), path)
    text = own_tensors(path)['embeddings/kernel']
    (name,) = (name for name in os.listdir(path) if '.data-' in name)
    with open(os.path.join(path, name), 'r+b') as file:
        start = file.read().find(text)
        file.seek(start + place % len(text))
        (byte,) = file.read(1)
        file.seek(start + place % len(text))
        file.write(bytes([byte ^ 1]))
    out = f'--out={tmp_path}/e.npz'
    capsys.readouterr()
    given = [f'--ckpt_path={path}', f'--data_path={plain[0]}', out, '--device=cpu']
    assert embed.main(given) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'Checksum does not match' in said and path in said


@pytest.mark.parametrize('damage', ['index', 'size'])
def test_index_and_sizes_are_verified_before_anything_is_read(plain, tmp_path, capsys, damage):
    path = str(tmp_path / 'step-00000003')
    shutil.copytree(os.path.join(plain[1], 'ckpt', 'step-00000003'), path)
    name = 'model.index' if damage == 'index' else 'model.data-00000-of-00001'
    with open(os.path.join(path, name), 'r+b') as file:
        if damage == 'index':
            file.write(b'x')
        else:
            file.truncate(100)
    given = [f'--ckpt_path={path}', f'--data_path={plain[0]}', f'--out={tmp_path}/e.npz']
    assert embed.main([*given, '--device=cpu']) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and f'{path}/{name}: expected ' in said
    assert said.endswith('Received: a truncated or altered file\n')


def test_too_many_classes_for_a_graph_are_told_before_they_are_read(plain, monkeypatch, capsys):
    """4 classes x 4 dimensions are 64 bytes."""
    monkeypatch.setattr(writing, 'GRAPH_BYTES', 64)
    monkeypatch.setattr(writing.graph, 'network_of', None)
    assert export.main([f'--ckpt_path={plain[1]}']) == 2
    assert capsys.readouterr().err == (
        'trainers.export: --classifier: expected class weights below the 2 GiB of a graph; '
        '--noclassifier exports embeddings alone. Received: 64 bytes\n'
    )


def test_a_measurement_of_embeddings_alone_has_no_losses_and_no_centers(plain):
    found = checkpoints.find(plain[1], '--ckpt_path')
    settings = checkpoints.options_of(found)
    with embedding.evaluation(found, settings, devices.choose(settings)) as handle:
        assert handle.step == 3 and handle.batch_size == 8
        with pytest.raises(ValueError, match='sweep: expected embeddings alone'):
            next(handle.sweep(None))
        for ask in (lambda: handle.center_rows(np.arange(1)), handle.centers_moved):
            with pytest.raises(NotImplementedError):
                ask()


def test_a_training_begins_from_a_whole_checkpoint_alone(plain, tmp_path, capsys):
    """Whatever it would read of it, as a resumed one."""
    out = str(tmp_path / 'run')
    shutil.copytree(plain[1], out)
    path = os.path.join(out, 'ckpt', 'step-00000003')
    invert(path, own_tensors(path).values())
    capsys.readouterr()
    flags = [f'--exp_save_dir={tmp_path}/new', f'--data_path={plain[0]}', '--dataset=folder']
    flags += ['--image_size=16', '--model=toy', '--embedding_dim=4', '--device=cpu']
    assert run.main([*flags, f'--init_checkpoint={out}']) == 2
    said = capsys.readouterr().err
    assert f'{path}/model.data-00000-of-00001: expected ' in said
    assert said.endswith('Received: a truncated or altered file\n')
