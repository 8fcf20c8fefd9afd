"""The frozen inference graph: the trainer's own numbers, nothing of the training in it, and a
correct manifest.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import exports
import toys
from callbacks.checkpoint import Checkpoint
from gitloss import data
from gitloss.backend import tf
from helpers import pixels
from trainers import checkpoints, devices, export
from trainers.engine.runtime import evaluation
from trainers.engine.trainer import Trainer
from trainers.exporting import description
from trainers.options import ROOT

pytestmark = pytest.mark.usefixtures('forked_parity')
PEER = os.environ.get('GITLOSS_PEER_PYTHON')  # another interpreter with the other TensorFlow
READ = """
import json, sys
from gitloss.backend import tf
definition = tf.GraphDef()
definition.ParseFromString(open(sys.argv[1], 'rb').read())
with tf.Graph().as_default() as graph:
    tf.import_graph_def(definition, name='')
    with tf.Session(graph=graph) as session:
        feeds = {'input_images:0': json.loads(sys.argv[2])}
        print(json.dumps(session.run('embeddings:0', feeds).tolist()))
"""
INFERENCE = set(
    'Placeholder Const Identity Conv2D BiasAdd Relu MaxPool MatMul Reshape RealDiv Sub Neg Mul '
    'AddV2 ArgMax'.split()
)


@pytest.fixture(
    scope='module',
    params=[{}, {'head': 'arcface', 'embedding_dim': 8, 'model': 'lenet_pp'}],
    ids=['mnist_cnn', 'arcface'],
)
def trained(request, tmp_path_factory):
    """(options, dataset) of a toy run of 12 steps with a checkpoint. The network of the second one
    reads pixels / 128 - 0.5.
    """
    settings = toys.options(tmp_path_factory.mktemp('trained'), **request.param)
    dataset = data.load('mnist', settings.data_folder)
    if request.param:
        preprocessing = data.Preprocessing(128.0, 0.5)
        dataset = dataset._replace(spec=dataset.spec._replace(preprocessing=preprocessing))
    Trainer(settings, dataset, [Checkpoint()], devices.choose(settings)).fit()
    return settings, dataset


@pytest.fixture(scope='module')
def exported(trained):
    """A function of flags: (GraphDef, manifest, output of the command) of an export with them, made
    once.
    """
    return functools.lru_cache(None)(functools.partial(export_of, trained[0]))


def export_of(settings, *flags):
    with contextlib.redirect_stdout(io.StringIO()) as printed, exports.forked_parity():
        assert export.main(['--ckpt_path=' + settings.run_dir] + list(flags)) == 0
    folder = os.path.join(settings.run_dir, 'export')
    definition = tf.GraphDef()
    with open(os.path.join(folder, 'gitloss.pb'), 'rb') as file:
        content = file.read()
    definition.ParseFromString(content)
    with open(os.path.join(folder, 'gitloss.json')) as file:
        manifest = json.load(file)
    (listed,) = manifest['formats'].values()
    assert listed['sha256'] == hashlib.sha256(content).hexdigest()
    assert listed['bytes'] == len(content) and listed['file'] == 'gitloss.pb'
    return definition, manifest, printed.getvalue().splitlines()


def test_the_frozen_graph_gives_the_trainers_embeddings_and_predictions(trained, exported):
    """All 40 test images, in batches of 16 by the trainer and of 8 by the frozen graph."""
    settings, dataset = trained
    definition, _, _ = exported('--export_batch=8')
    checkpoint = checkpoints.find(settings.run_dir, '--ckpt_path')
    with evaluation(checkpoint, settings, devices.choose(settings)) as handle:
        rows = list(handle.sweep(dataset.test))
    embeddings, predictions = (np.concatenate([row[place] for row in rows]) for place in (0, 1))
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name='')
        with tf.Session(graph=graph) as session:
            found = [
                session.run(
                    ['embeddings:0', 'predictions:0', 'logits:0'],
                    {'input_images:0': pixels(dataset.test)[start : start + 8]},
                )
                for start in range(0, 40, 8)
            ]
    np.testing.assert_allclose(
        np.concatenate([row[0] for row in found]), embeddings, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(np.concatenate([row[1] for row in found]), predictions)
    np.testing.assert_array_equal(
        np.concatenate([row[2] for row in found]).argmax(axis=1), predictions
    )


def test_only_the_inference_is_in_it(trained, exported):
    """One placeholder, no variable, label, center or summary; no attribute with its default value,
    which older readers may not know.
    """
    settings, _ = trained
    definition, _, _ = exported()
    assert [node.name for node in definition.node if node.op == 'Placeholder'] == ['input_images']
    assert not [
        node.name
        for node in definition.node
        if 'Variable' in node.op or 'center' in node.name or 'label' in node.name
    ]
    if settings.model == 'mnist_cnn':
        assert {node.op for node in definition.node} <= INFERENCE
    assert not [
        node.name
        for node in definition.node
        for name in ('explicit_paddings', 'grad_a', 'dilations', '_output_shapes')
        if name in node.attr
    ]


def test_the_manifest_names_input_and_outputs(trained, exported):
    """Of any batch, except for the frozen graph."""
    settings, _ = trained
    _, manifest, _ = exported()
    assert manifest['input'] == {
        'name': 'input_images',
        'tensor': 'input_images:0',
        'shape': [None, 8, 8, 1],
        'dtype': 'float32',
        'pixels': '0 to 255',
        'mean_image': 'in the graph',
    }
    assert manifest['outputs'] == [
        {
            'name': 'embeddings',
            'tensor': 'embeddings:0',
            'shape': [None, settings.embedding_dim],
            'dtype': 'float32',
        },
        {'name': 'logits', 'tensor': 'logits:0', 'shape': [None, 4], 'dtype': 'float32'},
        {'name': 'predictions', 'tensor': 'predictions:0', 'shape': [None], 'dtype': 'int32'},
    ]
    assert manifest['formats']['pb']['batch'] == 1
    assert manifest['checkpoint']['step'] == 12
    assert manifest['versions']['tensorflow'] == tf.__version__


def test_the_atc_command_is_ready(trained, exported):
    settings, _ = trained
    _, manifest, printed = exported('--export_batch=8')
    path = os.path.join(settings.run_dir, 'export', 'gitloss')
    form = (
        'atc --model=%s.pb --framework=3 --output=%s --input_shape="input_images:8,8,8,1" '
        '--out_nodes="embeddings:0;logits:0;predictions:0" --soc_version=Ascend310'
    )
    assert printed[0].startswith(path + '.pb: embeddings within ')
    assert printed[1:] == [form % (path, path)]
    assert manifest['atc'] == form % ('gitloss', 'gitloss')


def test_the_atc_command_takes_any_path():
    """Split as by a shell, each path is one word."""
    command = description.atc_command("/a b/it's $HOME.pb", {'name': 'images', 'shape': [1, 8]}, [])
    assert [word for word in shlex.split(command) if word.startswith(('--model', '--output'))] == [
        "--model=/a b/it's $HOME.pb",
        "--output=/a b/it's $HOME",
    ]


@pytest.mark.skipif(not PEER, reason='GITLOSS_PEER_PYTHON is not set')
def test_the_other_tensorflow_reads_it(trained, exported, tmp_path):
    definition, dataset, path = exported()[0], trained[1], tmp_path / 'gitloss.pb'
    path.write_bytes(definition.SerializeToString())
    image = dataset.test.images(np.arange(1))
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name='')
        with tf.Session(graph=graph) as session:
            expected = session.run('embeddings:0', {'input_images:0': image})
    arguments = [PEER, '-c', READ, str(path), json.dumps(image.tolist())]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(json.loads(result.stdout), expected, rtol=1e-5, atol=1e-6)


def test_a_folder_without_a_checkpoint_is_one_line(tmp_path):
    arguments = [sys.executable, '-m', 'trainers.export', f'--ckpt_path={tmp_path}']
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (2, '')
    assert (
        result.stderr
        == 'trainers.export: --ckpt_path: expected a checkpoint, or a folder with checkpoints. '
        f"Received: '{tmp_path}'\n"
    )


def test_an_export_outlives_its_checkpoint(trained, tmp_path, capsys):
    """An export of a checkpoint by its own name goes to the folder of the run: pruning, which
    removes the checkpoint, leaves it. One of a checkpoint outside any run goes beside it.
    """
    run = os.path.join(str(tmp_path), 'run')
    shutil.copytree(trained[0].run_dir, run)
    shutil.rmtree(os.path.join(run, 'export'), ignore_errors=True)
    first = os.path.join(run, 'ckpt', 'step-00000012')
    apart = os.path.join(str(tmp_path), 'best')
    shutil.copytree(first, apart)
    for path, folder in ((first, os.path.join(run, 'export')), (apart, apart + '.export')):
        assert export.main(['--ckpt_path=' + path]) == 0
        shutil.rmtree(path)
        assert sorted(os.listdir(folder)) == ['MODEL.md', 'gitloss.json', 'gitloss.pb']
        assert capsys.readouterr().out.startswith(os.path.join(folder, 'gitloss.pb: '))


def test_an_export_into_a_checkpoint_is_refused(trained, capsys):
    checkpoint = os.path.join(trained[0].run_dir, 'ckpt', 'step-00000012')
    before = sorted(os.listdir(checkpoint))
    folder = os.path.join(checkpoint, 'a', 'b')
    assert export.main([f'--ckpt_path={checkpoint}', f'--export_dir={folder}']) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        'trainers.export: --export_dir: expected a folder outside checkpoints, which are removed '
        f'when newer ones are saved. Received: {folder}, in the checkpoint {checkpoint}\n'
    )
    assert sorted(os.listdir(checkpoint)) == before
