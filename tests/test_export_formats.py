"""Every format gives what the network of the checkpoint gives, under the same names."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import exports
import few_blocks
import portraits
import toys
from callbacks.checkpoint import Checkpoint
from gitloss import data
from gitloss.backend import tf
from gitloss.files import digest
from helpers import pixels
from runs import trainer_of
from trainers import checkpoints, loading, options
from trainers.exporting.formats import FORMATS
from trainers.exporting.graph import network_of
from trainers.exporting.runtimes import OUTPUTS, open_model
from trainers.options import ROOT

PEER = os.environ.get('GITLOSS_PEER_PYTHON')  # another interpreter with the other TensorFlow
FLOAT = ('saved_model', 'pb', 'onnx', 'tflite')
# As an application of TensorFlow 2 does, without this project.
LOAD = """
import json, sys
import numpy as np
import tensorflow as tf
for line in sys.stdin:
    path, given, out = json.loads(line)
    model, images = tf.saved_model.load(path).signatures['serving_default'], np.load(given)
    np.savez(out, **{k: v.numpy() for k, v in model(input_images=tf.constant(images)).items()})
    print('done', flush=True)
"""


def gray(folder):
    """PReLU, a margin head, unit length; uint8 pixels, where TFLite can take them."""
    changes = {'model': 'lenet_pp', 'head': 'arcface', 'embedding_dim': 8, 'normalize': True}
    dtype = 'float32' if tf.__version__.startswith('1.') else 'uint8'
    return toys.options(folder, **changes), f'--input_dtype={dtype}'


def colour(folder):
    """Batch normalisation everywhere, depthwise convolutions, images in files."""
    path = portraits.write(folder / 'faces', ('ann', 'bo', 'cy'), 12)
    changes = {'dataset': 'folder', 'image_size': '16', 'batch_size': 8, 'embedding_norm': True}
    changes.update(model='mobilefacenet', embedding_dim=8, data_path=path, normalize=False)
    return toys.options(folder, **changes), '--input_dtype=float32'


@pytest.fixture(scope='module', params=[gray, colour], ids=['gray', 'colour'])
def run(request, tmp_path_factory):
    """(folder of an export in all formats, its gitloss.json, test images, (embeddings, logits))."""
    with pytest.MonkeyPatch.context() as patch, exports.forked_parity():
        few_blocks.install(patch.setattr)
        settings, dtype = request.param(tmp_path_factory.mktemp('formats'))
        dataset = loading.dataset_to_train(settings)
        trainer_of(settings, [Checkpoint()], dataset).fit()
        for name, text in data.files_of_run(dataset):
            with open(os.path.join(settings.run_dir, name), 'wb') as file:
                file.write(text)
        flags = ['--format=all', '--export_batch=4', dtype]
        manifest = exports.exported(settings.run_dir, *flags)
        with network_of(checkpoints.find(settings.run_dir, '--ckpt_path')) as network:
            images = pixels(dataset.test).astype(np.uint8)
            expected = network(images)
    return os.path.join(settings.run_dir, 'export'), manifest, images, expected


@pytest.mark.parametrize('name', FORMATS)
def test_a_file_gives_the_outputs_of_the_checkpoint(run, name):
    """In batches of 3, the last of which is padded; of 4 in the frozen graph."""
    folder, manifest, images, expected = run
    with open_model(os.path.join(folder, FORMATS[name].file), 3) as model:
        assert model.image_shape == images.shape[1:] and model.dim == 8
        assert model.batch_size == (4 if name == 'pb' else 3)
        embeddings, logits, predictions = model(OUTPUTS, images)
    assert predictions.dtype == np.int32 and predictions.shape == (len(images),)
    assert embeddings.dtype == logits.dtype == np.float32
    bound = 1e-5 if name in FLOAT else 0.01 if name == 'tflite_float16' else 0.3
    assert exports.relative(embeddings, expected['embeddings']) < bound
    if name in FLOAT:
        np.testing.assert_allclose(logits, expected['logits'], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(predictions, expected['logits'].argmax(axis=1))


def test_the_manifest_describes_the_files(run):
    folder, manifest, images, _ = run
    assert set(manifest['formats']) == set(options.EXPORT_FORMATS) == set(FORMATS)
    for name, each in manifest['formats'].items():
        path = os.path.join(folder, each['file'], *(['saved_model.pb'] * (name == 'saved_model')))
        assert (each['bytes'], each['sha256']) == (os.path.getsize(path), digest(path))
        figures = each['parity']
        assert figures['images'] == len(images) and figures['of'] == 'test images'
        assert 0 <= figures['accuracy'] <= 1 and figures['equal_predictions'] <= 1
        if name in FLOAT:
            assert figures['difference'] <= 1e-5 and figures['equal_predictions'] == 1
            assert figures['accuracy'] == figures['checkpoint_accuracy']
    assert manifest['input']['shape'] == [None, *images.shape[1:]]
    assert manifest['formats']['onnx']['parity']['runtime'].startswith('onnxruntime 1.')
    assert manifest['versions']['tf2onnx'] and manifest['versions']['tensorflow']
    with open(os.path.join(folder, 'MODEL.md'), encoding='utf-8') as file:
        card = file.read()
    assert all(each.file in card for each in FORMATS.values())
    assert len(os.listdir(folder)) == len(FORMATS) + 2 + bool(manifest['labels'])


def test_no_normalisation_is_left_behind_a_kernel(run):
    """mobilefacenet has 23 of them, all behind a convolution or the dense layer."""
    folder, _, images, _ = run
    with open(os.path.join(folder, 'gitloss.pb'), 'rb') as file:
        nodes = {node.name: node for node in tf.GraphDef.FromString(file.read()).node}
    kernels = ('Conv2D', 'DepthwiseConv2dNative', 'MatMul', 'Placeholder')
    factors = [
        node.name
        for node in nodes.values()
        if node.op == 'Mul' and {nodes[name].op for name in node.input} & set(kernels)
    ]
    # An arcface head scales its cosines.
    assert len(factors) == (1 if images.shape[3] == 1 else 0)
    assert not [node for node in nodes.values() if 'BatchNorm' in node.op]


def test_the_saved_model_has_the_signature_of_tensorflow_serving(run):
    folder, manifest, images, _ = run
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        path = os.path.join(folder, 'saved_model')
        loaded = tf.saved_model.load(session, ['serve'], path)
    signature = loaded.signature_def['serving_default']
    assert signature.method_name == 'tensorflow/serving/predict'
    assert list(signature.inputs) == ['input_images']
    assert signature.inputs['input_images'].tensor_shape.dim[0].size == -1
    assert sorted(signature.outputs) == sorted(OUTPUTS)


def test_the_onnx_file_has_opset_15_and_a_named_batch(run):
    onnx = pytest.importorskip('onnx')
    folder, manifest, images, _ = run
    model = onnx.load(os.path.join(folder, 'gitloss.onnx'))
    assert [each.version for each in model.opset_import if each.domain == ''] == [15]
    (given,) = model.graph.input
    dims = given.type.tensor_type.shape.dim
    assert given.name == 'input_images' and dims[0].dim_param == 'batch'
    assert [dim.dim_value for dim in dims[1:]] == list(images.shape[1:])
    assert [output.name for output in model.graph.output] == list(OUTPUTS)


@pytest.fixture(scope='module')
def application():
    """A process of LOAD, which is told [path of a SavedModel, path of images, path to write to]."""
    pipe = subprocess.PIPE
    command = [sys.executable, '-c', LOAD]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:
        yield process
        process.stdin.close()


@pytest.mark.skipif(tf.__version__.startswith('1.'), reason='that is an API of TensorFlow 2')
def test_tensorflow_2_loads_the_saved_model(run, application, tmp_path):
    folder, manifest, images, expected = run
    given, out = str(tmp_path / 'images.npy'), str(tmp_path / 'out.npz')
    np.save(given, images.astype(manifest['input']['dtype']))
    path = os.path.join(folder, 'saved_model')
    application.stdin.write(json.dumps([path, given, out]) + '\n')
    assert application.stdout.readline() == 'done\n'
    with np.load(out) as found:
        assert exports.relative(found['embeddings'], expected['embeddings']) < 1e-5


@pytest.mark.skipif(not PEER, reason='GITLOSS_PEER_PYTHON is not set')
def test_the_other_interpreter_gives_the_same(run, tmp_path):
    """Frozen graph, SavedModel, ONNX and TFLite of either TensorFlow, in the other's runtimes."""
    folder, _, images, expected = run
    given, out = str(tmp_path / 'images.npy'), str(tmp_path / 'out.npz')
    np.save(given, images)
    names = ('saved_model', 'pb', 'onnx')
    # TFLite of TensorFlow 2 may have versions of operations that 1.15 does not know.
    names += ('tflite',) if tf.__version__.startswith('1.') else ()
    paths = [os.path.join(folder, FORMATS[name].file) for name in names]
    command = [PEER, '-m', 'trainers.exporting.running', given, out, *paths]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert ended.returncode == 0, ended.stderr
    with np.load(out) as found:
        for number in range(len(names)):
            assert exports.relative(found[f'{number}/embeddings'], expected['embeddings']) < 1e-5


def test_the_metrics_of_the_card_are_those_of_the_checkpoint(run):
    folder, manifest, _, _ = run
    with open(os.path.join(folder, 'gitloss.json')) as file:
        metrics = json.load(file)['checkpoint']['metrics']
    with open(os.path.join(folder, 'MODEL.md'), encoding='utf-8') as file:
        card = file.read()
    assert f'| train_loss | {metrics["train_loss"]:.6g} |' in card
    assert ' + center loss + git loss\n' in card
