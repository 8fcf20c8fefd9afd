"""An export that differs from its checkpoint, or cannot be checked, leaves nothing behind."""

import json
import os
import shutil

import numpy as np
import pytest

import exports
import toys
from callbacks.checkpoint import Checkpoint
from gitloss import data, files
from gitloss.backend import tf
from gitloss.errors import ExportError
from runs import trainer_of
from trainers import export
from trainers.exporting import packages, parity
from trainers.exporting.formats import FORMATS
from trainers.exporting.samples import Samples

pytestmark = pytest.mark.usefixtures('forked_parity')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Options of a run whose checkpoint is all that tests read."""
    settings = toys.options(tmp_path_factory.mktemp('parity'))
    trainer_of(settings, [Checkpoint()]).fit()
    return settings


def told(capsys, run, *flags):
    """(exit status, the one line on stderr, the lines on stdout)."""
    capsys.readouterr()
    status = export.main([f'--ckpt_path={run.run_dir}', *flags])
    said = capsys.readouterr()
    assert said.err.count('\n') == (status != 0)
    return status, said.err.strip(), said.out.splitlines()


def test_the_difference_is_relative_to_the_length_or_to_the_median_length():
    """Lengths 5, 10, 0.001: the median is 5. Distances 1, 0.1, 0.5: 0.2, 0.01 and 0.5 / 5."""
    expected = np.array([[3.0, 4.0], [10.0, 0.0], [0.0, 0.001]])
    found = expected + [[0.0, 1.0], [0.1, 0.0], [0.5, 0.0]]
    assert parity.difference(found, expected) == pytest.approx(0.2)
    assert parity.difference(found[1:2], expected[1:2]) == pytest.approx(0.01)
    assert parity.difference(expected, expected) == 0


def test_the_cosine_is_the_mean_over_the_images():
    """Angles of 0 and 90 degrees."""
    expected, found = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[5.0, 0.0], [0.0, 1.0]])
    assert parity.cosine(found, expected) == pytest.approx(0.5)


def figures(name, difference, cosine=1.0):
    found = {'difference': difference, 'cosine': cosine, 'images': 1, 'of': 'test images'}
    parity.check_bounds(name, FORMATS[name], found, 1e-5)


def test_each_format_has_its_bound():
    """float32: --parity_tolerance; float16: 1e-2; int8: a mean cosine of 0.95. NaN never holds."""
    figures('onnx', 1e-5)
    figures('tflite_float16', 1e-2)
    figures('tflite_int8', 3.0, 0.96)
    for name, *wrong in (
        ('onnx', 1.1e-5),
        ('onnx', float('nan')),
        ('tflite_float16', 1.1e-2),
        ('tflite_int8', 0.1, 0.94),
        ('tflite_int8', 0.1, float('nan')),
    ):
        with pytest.raises(ExportError, match=f'--format={name}: expected embeddings .* Received'):
            figures(name, *wrong)


def test_accuracies_are_those_of_the_labels():
    """The file is right for 1 of 4 images, the checkpoint for 2; they agree on 3."""
    rows = np.eye(4, 2)
    expected = {'embeddings': rows, 'logits': np.array([[1, 0], [1, 0], [0, 1], [0, 1]])}
    found = {'embeddings': rows, 'predictions': np.array([1, 0, 1, 1]), 'runtime': np.array('r 1')}
    samples = Samples(np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 1, 1, 0]), 'test images')
    compared = parity.compared(found, expected, samples)
    assert (compared['accuracy'], compared['checkpoint_accuracy']) == (0.25, 0.5)
    assert (compared['equal_predictions'], compared['runtime']) == (0.75, 'r 1')
    assert parity.compared(found, expected, samples._replace(labels=None))['accuracy'] is None


def put(monkeypatch, name, write):
    monkeypatch.setitem(FORMATS, name, FORMATS[name]._replace(write=write))


def test_a_wrong_file_leaves_nothing_and_an_older_export_as_it_was(run, monkeypatch, capsys):
    """The wrong file scales its embeddings by 1.001: a difference of 0.001."""
    right = FORMATS['pb'].write

    def wrong(content, path):
        right(content, path)
        with open(path, 'rb') as file:
            definition = type(content.graph.definition).FromString(file.read())
        (last,) = [node for node in definition.node if node.name == 'embeddings']
        factor = definition.node.add(name='factor', op='Const')
        factor.CopyFrom(exports.constant('factor', np.float32(1.001)))
        last.op, last.input[:] = 'Mul', [last.input[0], 'factor']
        files.write_atomically(path, definition.SerializeToString())

    folder = os.path.join(run.run_dir, 'export')
    put(monkeypatch, 'pb', wrong)
    status, said, _ = told(capsys, run)
    assert status == 1 and 'within 1e-05 of those of the checkpoint' in said
    assert 'Received: a difference of 0.001 and' in said
    assert not os.path.exists(folder)
    assert told(capsys, run, '--parity_tolerance=0.01')[0] == 0
    before = {name: files.digest(os.path.join(folder, name)) for name in os.listdir(folder)}
    assert told(capsys, run)[0] == 1
    assert {n: files.digest(os.path.join(folder, n)) for n in os.listdir(folder)} == before
    shutil.rmtree(folder)


def test_a_file_that_its_runtime_does_not_load_is_one_line(run, monkeypatch, capsys):
    put(monkeypatch, 'pb', lambda content, path: files.write_atomically(path, b'\x0a\xff\xff'))
    status, said, _ = told(capsys, run)
    assert status == 1 and 'parity: expected files that their runtimes run. Received: ' in said
    assert 'gitloss.pb: expected a whole model' in said
    assert not os.path.exists(os.path.join(run.run_dir, 'export'))


def test_a_new_export_replaces_the_earlier_one_and_no_other_file(run, capsys):
    folder = os.path.join(run.run_dir, 'export')
    assert told(capsys, run, '--format=saved_model')[0] == 0
    with open(os.path.join(folder, 'notes.txt'), 'w') as file:
        file.write('mine')
    assert told(capsys, run, '--format=pb')[0] == 0
    assert sorted(os.listdir(folder)) == ['MODEL.md', 'gitloss.json', 'gitloss.pb', 'notes.txt']
    shutil.rmtree(folder)


def test_a_folder_of_something_else_is_neither_replaced_nor_removed(run, tmp_path, capsys):
    (tmp_path / 'saved_model').mkdir()
    (tmp_path / 'saved_model' / 'mine').write_text('mine')
    status, said, _ = told(capsys, run, '--format=saved_model', f'--export_dir={tmp_path}')
    assert status == 2 and f'{tmp_path}/saved_model: expected no folder of something else' in said
    assert os.listdir(str(tmp_path)) == ['saved_model']
    assert (tmp_path / 'saved_model' / 'mine').read_text() == 'mine'


def test_without_data_random_images_are_compared_and_int8_is_refused(run, tmp_path, capsys):
    copy = str(tmp_path / 'run')
    shutil.copytree(run.run_dir, copy)
    os.rename(run.data_path, run.data_path + '-away')
    try:
        status, _, lines = told(capsys, run, f'--export_dir={tmp_path}/out')
        assert status == 0 and 'on 64 random images, since ' in lines[0]
        assert 'accuracy' not in lines[0]
        with open(str(tmp_path / 'out' / 'gitloss.json')) as file:
            figures = json.load(file)['formats']['pb']['parity']
        assert figures['of'].startswith('random images') and figures['accuracy'] is None
        status, said, _ = told(capsys, run, '--format=tflite_int8', f'--export_dir={tmp_path}/new')
        assert status == 2 and 'expected training images to calibrate with. Received: ' in said
        assert not os.path.exists(str(tmp_path / 'new'))
    finally:
        os.rename(run.data_path + '-away', run.data_path)


def test_pixels_of_uint8(run, tmp_path, capsys):
    """TFLite of TensorFlow 1.15 cannot take them."""
    flags = ['--input_dtype=uint8', f'--export_dir={tmp_path}/out']
    status, _, lines = told(capsys, run, '--format=saved_model,pb,onnx', *flags)
    assert status == 0 and len(lines) == 4
    with open(str(tmp_path / 'out' / 'gitloss.json')) as file:
        assert json.load(file)['input']['dtype'] == 'uint8'
    if tf.__version__.startswith('1.'):
        status, said, _ = told(capsys, run, '--format=tflite', *flags)
        assert status == 2 and '--format=tflite: expected TensorFlow 2 with' in said


def test_data_path_names_other_images(run, tmp_path, capsys):
    other = toys.write_mnist(tmp_path / 'other', train=24, test=7)
    flags = [f'--export_dir={tmp_path}/out', f'--data_path={other}']
    status, _, lines = told(capsys, run, *flags)
    assert status == 0 and ', on 7 test images, by ' in lines[0]
    flags[1] = '--data_path=' + toys.write_mnist(tmp_path / 'large', train=24, test=8, size=12)
    status, said, _ = told(capsys, run, *flags)
    assert status == 2 and said.endswith(
        '--data_path: expected images of the shape (8, 8, 1). Received: (12, 12, 1)'
    )


@pytest.mark.parametrize(
    'flags, line',
    [
        (['--format=caffe'], '--format: expected some of saved_model, pb, onnx, '),
        (['--format=pb,'], '--format: expected some of saved_model, pb, onnx, '),
        (['--input_dtype=int8'], '--input_dtype: expected one of float32, uint8. Received'),
        (['--parity_tolerance=-1'], '--parity_tolerance: expected 0 to 1. Received: -1'),
        (['--data_path=/nowhere'], '--data_path: expected a folder of IDX files or an npz file.'),
    ],
)
def test_mistakes_are_one_line(run, capsys, flags, line):
    status, said, _ = told(capsys, run, *flags)
    assert status == 2 and line in said
    assert not os.path.exists(os.path.join(run.run_dir, 'export'))


def test_a_missing_package_is_named_with_the_command_that_installs_it(run, monkeypatch, capsys):
    find = packages.importlib.util.find_spec
    monkeypatch.setattr(
        packages.importlib.util, 'find_spec', lambda name: None if name == 'tf2onnx' else find(name)
    )
    status, said, _ = told(capsys, run, '--format=pb,onnx')
    assert (status, said) == (
        2,
        'trainers.export: --format=onnx: expected tf2onnx and onnx and onnxruntime to be '
        'installed. Received: no tf2onnx; pip install ".[export]"',
    )


def test_calibration_draws_training_images_by_the_seed(run):
    from trainers import checkpoints
    from trainers.exporting.samples import RunImages
    from trainers.options import Options

    checkpoint = checkpoints.find(run.run_dir, '--ckpt_path')
    options = Options(ckpt_path=run.run_dir)
    drawn = RunImages(options, checkpoint).calibrating()
    train = data.load('mnist', run.data_folder).train
    count = min(128, len(train))
    chosen = np.sort(np.random.RandomState(run.seed).choice(len(train), count, replace=False))
    np.testing.assert_array_equal(drawn, train.images(chosen))
