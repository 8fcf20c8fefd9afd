"""What the installed TensorBoard reads of the files that the callback wrote from made-up values."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from events import COUNT, OPTIONS, FakeHandle, begun, read, steps_of, train
from gitloss import metrics
from gitloss.backend import tf
from gitloss.metrics import Metric

TESTED = {'test_acc': 0.8, 'test_eer': 0.01, 'test_inter_over_intra': 3.0}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """(folder, what TensorBoard read, the Evaluation) of an undisturbed run of 12 steps."""
    folder = tmp_path_factory.mktemp('whole')
    with tf.Graph().as_default():
        tf.constant([1.0, 2.0], name='two_numbers')
        callback, evaluation = begun(folder)
    logs = dict(train(callback, 1, 12), **TESTED)
    callback.on_train_end(logs)
    callback.close()
    return folder, read(folder), evaluation


def test_scalars_equal_the_logs(whole):
    """inter / intra = 6 / 1.5 = 4."""
    _, found, _ = whole
    expected = {
        'train/loss': lambda step: 1.0 / step,
        'train/git_loss': lambda step: 0.5,
        'train/git_floor': lambda step: 0.25,
        'train/learning_rate': lambda step: 0.001 * step,
        'valid/acc': lambda step: 0.9,
        'distance/inter_cls_dist': lambda step: 6.0,
        'distance/intra_cls_dist': lambda step: 1.5,
        'distance/inter_over_intra': lambda step: 4.0,
        'distance/inter_cls_dist_running': lambda step: 5.0,
        'centers/center_drift': lambda step: 0.1,
        'centers/centers_moved': lambda step: 0.75,
        'run/images_per_sec': lambda step: 1e3,
    }
    for tag, value in expected.items():
        assert [(event.step, event.value) for event in found.Scalars(tag)] == [
            (step, pytest.approx(value(step), rel=1e-6)) for step in (4, 8, 12)
        ], tag
    assert [(event.step, event.value) for event in found.Scalars('train_batch/loss')] == [
        (step, pytest.approx(10.0 / step, rel=1e-6)) for step in (3, 6, 9, 12)
    ]
    assert [(event.step, event.value) for event in found.Scalars('test/acc')] == [
        (12, pytest.approx(0.8))
    ]
    assert set(found.Tags()['scalars']) == set(expected) | {
        'train_batch/loss',
        'train_batch/accuracy',
        'train_batch/norm',
        'test/acc',
        'test/eer',
        'test/inter_over_intra',
    }


def test_histograms_count_every_value(whole):
    _, found, evaluation = whole
    genuine, impostor = metrics.pair_distances(evaluation.embeddings, evaluation.labels)
    for tag, values in (
        ('embeddings/norm', np.linalg.norm(evaluation.embeddings, axis=1)),
        ('distance/genuine_pairs', genuine),
        ('distance/impostor_pairs', impostor),
    ):
        events = found.Histograms(tag)
        assert [event.step for event in events] == [4, 8, 12]
        histogram = events[-1].histogram_value
        assert sum(histogram.bucket) == histogram.num == len(values)
        assert [histogram.min, histogram.max, histogram.sum] == pytest.approx(
            [values.min(), values.max(), values.sum()]
        )
        assert len(histogram.bucket) == len(histogram.bucket_limit) and histogram.bucket_limit[
            -1
        ] == pytest.approx(values.max())
    assert len(genuine) + len(impostor) == COUNT * (COUNT - 1) // 2


def test_images_are_the_pictures(whole):
    _, found, _ = whole
    for tag, size in (('embeddings/scatter', (720, 640)), ('predictions/confusion', (640, 600))):
        events = found.Images(tag)
        assert [event.step for event in events] == [4, 8, 12]
        picture = Image.open(io.BytesIO(events[-1].encoded_image_string))
        picture.load()
        assert (
            picture.format == 'PNG'
            and picture.size == (events[-1].width, events[-1].height) == size
        )


def test_options_and_versions_are_text(whole):
    _, found, _ = whole
    table = found.Tensors('run/options')[0].tensor_proto.string_val[0].decode()
    assert (
        '| name | value |\n|---|---|\n| head | <code>softmax</code> |\n' in table
        and '| freeze |  |' in table
    )
    # The value cannot end its cell, and is not read as markup.
    assert '| data_path | <code>a&#124;b &lt;i></code> |' in table
    assert (
        '| tensorflow | <code>2.21</code> |'
        in found.Tensors('run/versions')[0].tensor_proto.string_val[0].decode()
    )
    assert found.SummaryMetadata('run/options').plugin_data.plugin_name == 'text'


def test_the_graph_is_there(whole):
    graph = whole[1].Graph()
    assert [node.name for node in graph.node] == ['two_numbers']


def hparams_of(found, tag):
    data = plugin_data_pb2.HParamsPluginData.FromString(
        found.SummaryMetadata('_hparams_/' + tag).plugin_data.content
    )
    assert data.version == 0
    return getattr(data, tag)


def test_hyperparameters_come_back_with_their_types(whole):
    _, found, _ = whole
    start = hparams_of(found, 'session_start_info')
    values = {
        name: getattr(value, value.WhichOneof('kind')) for name, value in start.hparams.items()
    }
    assert values == OPTIONS and type(values['evaluate']) is bool
    experiment = hparams_of(found, 'experiment')
    kinds = {
        info.name: api_pb2.DataType.Name(info.type)[len('DATA_TYPE_') :]
        for info in experiment.hparam_infos
    }
    assert kinds == {
        'head': 'STRING',
        'steps': 'FLOAT64',
        'learning_rate': 'FLOAT64',
        'evaluate': 'BOOL',
        'freeze': 'STRING',
        'data_path': 'STRING',
    }
    columns = {info.name.tag for info in experiment.metric_infos}
    assert {'valid/acc', 'test/acc', 'distance/inter_over_intra'} <= columns
    assert columns - {'valid/loss'} <= set(found.Tags()['scalars'])
    assert hparams_of(found, 'session_end_info').status == api_pb2.STATUS_SUCCESS


def test_numbers_of_ones_own_are_shown_declared_or_not(tmp_path, monkeypatch):
    """Undeclared in the section `run`; with a better direction it is a column of HParams too."""
    mine = Metric('margin', 'my margin', 'distance', True)
    monkeypatch.setitem(FakeHandle.metrics, 'margin', mine)
    callback, _ = begun(tmp_path, pictures=False)
    callback.on_epoch_end(1, {'step': 4, 'margin': 1.5, 'valid_mine': 2.5})
    callback.close()
    found = read(tmp_path)
    assert set(found.Tags()['scalars']) == {'distance/margin', 'run/valid_mine'}
    columns = {
        info.name.tag: info.display_name for info in hparams_of(found, 'experiment').metric_infos
    }
    assert columns['distance/margin'] == 'my margin' and columns['test/acc'] == 'test accuracy'


def test_a_longer_run_has_its_new_hyperparameters(tmp_path, monkeypatch):
    """The same folder with --steps=16 after a run of 12."""
    for begin, steps in ((0, 12), (12, 16)):
        monkeypatch.setitem(OPTIONS, 'steps', steps)
        callback, _ = begun(tmp_path, step=begin, pictures=False)
        callback.on_train_end(train(callback, begin + 1, steps))
        callback.close()
        assert (
            hparams_of(read(tmp_path), 'session_start_info').hparams['steps'].number_value == steps
        )
    assert sum(name.endswith('.hparams') for name in os.listdir(str(tmp_path))) == 1


def test_a_run_that_broke_off_says_so_until_it_is_continued(tmp_path):
    callback, _ = begun(tmp_path, pictures=False)
    train(callback, 1, 6)
    callback.close()
    assert hparams_of(read(tmp_path), 'session_end_info').status == api_pb2.STATUS_FAILURE
    callback, _ = begun(tmp_path, step=4, pictures=False)
    assert '_hparams_/session_end_info' not in read(tmp_path).Tags()['tensors']
    callback.on_train_end(train(callback, 5, 12))
    callback.close()
    assert hparams_of(read(tmp_path), 'session_end_info').status == api_pb2.STATUS_SUCCESS


def test_a_continued_run_draws_one_line(tmp_path, whole):
    """Killed after step 11, continued from the checkpoint of step 8, finished, and started once
    more with nothing left to do: every tag has every step once, as in the undisturbed run.
    """
    with tf.Graph().as_default():
        callback, _ = begun(tmp_path)  # never closed: a kill
    train(callback, 1, 11)
    assert steps_of(read(tmp_path))['train_batch/loss'] == [3, 6, 9]  # everything is flushed
    callback, _ = begun(tmp_path, step=8)
    logs = dict(train(callback, 9, 12), **TESTED)
    callback.on_train_end(logs)
    callback.close()
    callback, _ = begun(tmp_path, step=12)
    callback.on_train_end(logs)
    callback.close()
    found, undisturbed = steps_of(read(tmp_path)), steps_of(whole[1])
    # Once per process.
    assert found.pop('run/options') == found.pop('run/versions') == [1, 9, 13]
    assert found == {
        tag: steps
        for tag, steps in undisturbed.items()
        if tag not in ('run/options', 'run/versions')
    }


def test_a_step_back_within_a_run_draws_one_line(tmp_path):
    callback, _ = begun(tmp_path, pictures=False)
    train(callback, 1, 8)
    callback.on_rewind(5)
    train(callback, 6, 9)
    assert all(len(set(steps)) == len(steps) for steps in steps_of(read(tmp_path)).values())
    assert steps_of(read(tmp_path))['train_batch/loss'] == [3, 6, 9]
