"""What the installed TensorBoard reads of the files that the callback wrote from made-up values."""

import glob
import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from callbacks import projector, summaries
from callbacks.base import RunHandle
from callbacks.centers import CenterMeasurement
from callbacks.evaluation import Evaluation
from callbacks.figures import Figures
from callbacks.tensorboard import TensorBoard
from gitloss import metrics
from gitloss.backend import tf
from gitloss.data import ArraySource
from gitloss.figures import confusion, encoding, plots, view
from gitloss.metrics import Metric, declaration
from trainers.engine.meter import Meter

CLASSES, COUNT = 4, 60
OPTIONS = {
    'head': 'softmax',
    'steps': 12,
    'learning_rate': 0.001,
    'evaluate': True,
    'freeze': '',
    'data_path': 'a|b <i>',
}
UNLIMITED = dict.fromkeys(
    (
        event_accumulator.SCALARS,
        event_accumulator.HISTOGRAMS,
        event_accumulator.IMAGES,
        event_accumulator.TENSORS,
    ),
    0,
)


class FakeHandle(RunHandle):
    num_classes, step, options = CLASSES, 0, OPTIONS
    metrics = declaration.by_name(
        Meter(('loss', 'git_loss', 'git_floor', 'center_drift', 'accuracy'), 16).metrics
        + [*Evaluation.metrics, *CenterMeasurement.metrics]
    )

    def __init__(self, run_dir, step=0):
        self.run_dir, self.step = str(run_dir), step


def begun(folder, step=0, pictures=True, dim=2, **settings):
    """A TensorBoard callback at the start of a run, or of a continued one, and the Evaluation it
    reads.
    """
    random = np.random.RandomState(0)
    labels = (np.arange(COUNT) % CLASSES).astype(np.int32)
    images = random.randint(0, 256, (COUNT, 8, 6, 1)).astype(np.uint8)
    evaluation, centers = Evaluation(ArraySource(images, labels)), CenterMeasurement(None)
    base = 3 * random.randn(CLASSES, dim)
    evaluation.embeddings = (base[labels] + 0.1 * random.randn(COUNT, dim)).astype(np.float32)
    evaluation.predictions = np.where(
        np.arange(COUNT) % 10 == 0, (labels + 1) % CLASSES, labels
    ).astype(np.int32)
    evaluation.all_predictions = evaluation.predictions
    centers.means = base
    figures = Figures(evaluation, centers)
    if pictures:
        settings.update(figures=figures)
    facts = {'versions': {'tensorflow': '2.21'}}
    callback = TensorBoard(OPTIONS, log_every=3, facts=facts, **settings)
    callback.handle = figures.handle = FakeHandle(folder, step)
    callback.on_train_begin({})
    return callback, evaluation


def logs_at(step):
    return {
        'step': step,
        'train_loss': 1.0 / step,
        'train_git_loss': 0.5,
        'train_git_floor': 0.25,
        'learning_rate': 0.001 * step,
        'valid_acc': 0.9,
        'inter_cls_dist': 6.0,
        'intra_cls_dist': 1.5,
        'inter_over_intra': 4.0,
        'inter_cls_dist_running': 5.0,
        'center_drift': 0.1,
        'centers_moved': 0.75,
        'images_per_sec': 1e3,
    }


def train(callback, first, last, every=4):
    """Runs steps first ... last with a measurement at every multiple of `every`. Returns the last
    logs.
    """
    logs = {}
    for step in range(first, last + 1):
        callback.handle.step = step
        callback.on_train_batch_end(
            step,
            {
                'loss': 10.0 / step,
                'accuracy': 0.5,
                'images_per_sec': 9.0,
                'norm': np.float32(2),
                'no_number': np.zeros(3),
                'flag': True,
            },
        )
        if step % every == 0:
            logs = logs_at(step)
            for one in (callback.figures, callback):
                if one is not None:
                    one.on_epoch_end(step // every, logs)
    return logs


def read(folder):
    accumulator = event_accumulator.EventAccumulator(
        str(folder), UNLIMITED, purge_orphaned_data=True
    )
    accumulator.Reload()
    return accumulator


def steps_of(accumulator):
    """{tag: steps} of everything with a step."""
    kinds = (
        (accumulator.Scalars, 'scalars'),
        (accumulator.Histograms, 'histograms'),
        (accumulator.Images, 'images'),
        (accumulator.Tensors, 'tensors'),
    )
    tags = accumulator.Tags()
    return {
        tag: [event.step for event in events(tag)] for events, kind in kinds for tag in tags[kind]
    }


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """(folder, what TensorBoard read, the Evaluation) of an undisturbed run of 12 steps."""
    folder = tmp_path_factory.mktemp('whole')
    with tf.Graph().as_default():
        tf.constant([1.0, 2.0], name='two_numbers')
        callback, evaluation = begun(folder)
    logs = dict(train(callback, 1, 12), test_acc=0.8)
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


def test_a_histogram_of_equal_or_no_values():
    value = summaries.histogram('a', np.full(7, 3.0)).histo
    assert (value.min, value.max, value.num, sum(value.bucket)) == (3.0, 3.0, 7.0, 7.0)
    assert summaries.histogram('a', [1.0, np.nan, np.inf]).histo.num == 1.0
    with pytest.raises(ValueError, match='at least one finite value'):
        summaries.histogram('a', [np.nan])


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
    logs = dict(train(callback, 9, 12), test_acc=0.8)
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


@pytest.mark.parametrize('count, dim', [(COUNT, 2), (2500, 5)])
def test_projector_files_fit_together(tmp_path, count, dim):
    """2500 samples: 1000 of them, evenly spaced, in a sprite of 32 x 32 thumbnails of 6 x 8
    pixels.
    """
    random = np.random.RandomState(0)
    embeddings, labels = random.randn(count, dim).astype(np.float32), random.randint(0, 10, count)
    images = random.randint(0, 256, (count, 8, 6, 1)).astype(np.uint8)
    writer = projector.Projector(FakeHandle(tmp_path).write, ArraySource(images, labels))
    writer.write('first', embeddings + 1, labels, labels, np.arange(count))
    writer.write('second', embeddings, labels, np.zeros_like(labels), np.arange(count))
    text = (tmp_path / 'projector_config.pbtxt').read_text()
    from google.protobuf import text_format

    entry = text_format.Parse(text, ProjectorConfig()).embeddings[0]
    assert entry.tensor_name == 'second'
    chosen = metrics.evenly_spaced(count, 1000)
    side = int(np.ceil(np.sqrt(len(chosen))))
    assert len(chosen) == min(count, 1000) and (chosen[0], chosen[-1]) == (0, count - 1)
    table = np.loadtxt(str(tmp_path / entry.tensor_path), delimiter='\t')
    np.testing.assert_allclose(table[:, :dim], embeddings[chosen], rtol=1e-5)
    # The Projector needs three dimensions.
    assert table.shape == (len(chosen), max(dim, 3)) and not table[:, dim:].any()
    lines = (tmp_path / entry.metadata_path).read_text().splitlines()
    assert (
        lines[0].split('\t') == ['label', 'predicted', 'right', 'number']
        and len(lines) == len(chosen) + 1
    )
    assert lines[-1].split('\t') == [
        str(labels[-1]),
        '0',
        str(int(labels[-1] == 0)),
        str(count - 1),
    ]
    sheet = np.asarray(Image.open(str(tmp_path / entry.sprite.image_path)))
    assert list(entry.sprite.single_image_dim) == [6, 8] and sheet.shape == (8 * side, 6 * side)
    row, column = divmod(len(chosen) - 1, side)
    np.testing.assert_array_equal(
        sheet[row * 8 : row * 8 + 8, column * 6 : column * 6 + 6], images[-1, ..., 0]
    )
    assert not glob.glob(str(tmp_path / 'projector' / '*.tmp'))


def test_large_thumbnails_are_made_smaller():
    """160 x 96 pixels, at most 48: 29 x 48 by the factor 0.3. Three channels remain colors."""
    content, size = projector.sprite(np.full((5, 160, 96, 3), (255, 0, 0), np.uint8))
    sheet = Image.open(io.BytesIO(content))
    assert (
        size == (29, 48)
        and sheet.size == (3 * 29, 3 * 48)
        and sheet.getpixel((10, 10)) == (255, 0, 0)
    )


def test_the_projector_names_samples_and_thumbnails_by_their_place_in_the_split(tmp_path):
    """Two samples of five, numbers 1 and 4: their own thumbnails and numbers."""
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    source = ArraySource(images, np.zeros(5, np.int32))
    projector.Projector(FakeHandle(tmp_path).write, source).write(
        'two', np.zeros((2, 2)), [7, 8], [7, 7], [1, 4]
    )
    assert (tmp_path / 'projector' / 'metadata.tsv').read_text().split('\n')[1:3] == [
        '7\t7\t1\t1',
        '8\t7\t0\t4',
    ]
    assert np.unique(
        np.asarray(Image.open(str(tmp_path / 'projector' / 'sprite.png')))[:4]
    ).tolist() == [1, 4]


@pytest.mark.parametrize('dim', [1, 2, 7, 100])
def test_any_dimension_is_drawn(tmp_path, caplog, dim):
    callback, _ = begun(tmp_path, dim=dim)
    train(callback, 1, 4)
    assert (
        set(read(tmp_path).Tags()['images']) == {'embeddings/scatter', 'predictions/confusion'}
        and not caplog.records
    )


def test_the_performance_run_has_numbers_and_no_pictures(tmp_path):
    callback, _ = begun(tmp_path, pictures=False)
    callback.on_train_end(train(callback, 1, 4))
    callback.close()
    tags = read(tmp_path).Tags()
    assert not tags['images'] and not tags['histograms'] and 'train/loss' in tags['scalars']
    assert {'run/options', '_hparams_/session_start_info'} <= set(tags['tensors'])
    assert all(name.startswith('events.') for name in os.listdir(str(tmp_path)))


def test_what_fails_warns_once_and_the_rest_is_written(tmp_path, caplog, monkeypatch):
    def broken(*args):
        raise RuntimeError('no memory for a picture')

    monkeypatch.setattr(plots, 'scatter', broken)
    callback, _ = begun(tmp_path)
    callback.on_train_end(train(callback, 1, 8))
    callback.close()
    assert [record.getMessage() for record in caplog.records] == [
        'TensorBoard: no scatter at step 4: no memory for a picture'
    ]
    steps = steps_of(read(tmp_path))
    assert steps['predictions/confusion'] == steps['valid/acc'] == [4, 8]


def test_outdated_files_that_cannot_be_removed_stop_nothing(tmp_path, caplog, monkeypatch):
    callback, _ = begun(tmp_path)
    callback.on_train_end(train(callback, 1, 4))
    callback.close()

    def forbidden(path):
        raise PermissionError(13, 'Permission denied', path)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'remove', forbidden)
        callback, _ = begun(tmp_path, step=4)
    callback.on_train_end(train(callback, 5, 8))
    callback.close()
    assert len(caplog.records) == 1 and caplog.records[0].getMessage().startswith(
        'TensorBoard: no removal of outdated files at step 4: '
    )
    steps = steps_of(read(tmp_path))
    assert (
        steps['embeddings/scatter'] == steps['valid/acc'] == [4, 8]
        and (tmp_path / 'projector' / 'sprite.png').exists()
    )


def test_a_continued_run_keeps_its_axes(tmp_path, monkeypatch):
    """Embeddings that shrink to a tenth before the kill: later pictures have the axes of the
    earlier ones.
    """
    limits, scatter = [], plots.scatter
    monkeypatch.setattr(
        plots, 'scatter', lambda *args: (limits.append(args[-1]), scatter(*args))[1]
    )
    callback, _ = begun(tmp_path)
    train(callback, 1, 4)
    state = json.loads(json.dumps(callback.figures.state()))
    callback, evaluation = begun(tmp_path, step=4)
    callback.figures.load_state(state)
    evaluation.embeddings = evaluation.embeddings / 10
    train(callback, 5, 8)
    assert len(limits) == 2 and limits[0] == limits[1] >= view.extent(
        10 * evaluation.embeddings, []
    )


class FullDisk:
    """A file that accepts `room` bytes and then fails, until there is room again."""

    def __init__(self, path, mode, buffering):
        self._file, self.room = open(path, mode, buffering=buffering), 10**9

    def write(self, data):
        if not self.room:
            raise OSError(28, 'No space left on device')
        written = self._file.write(data[: self.room])
        self.room -= written
        return written

    def close(self):
        self._file.close()


def test_a_full_disk_warns_once_and_loses_nothing_once_there_is_room(tmp_path, caplog, monkeypatch):
    disks = []
    monkeypatch.setattr(
        summaries,
        'open',
        lambda *args, **kw: disks.append(FullDisk(*args, **kw)) or disks[-1],
        False,
    )
    callback, _ = begun(tmp_path, pictures=False)
    disk = disks[0]
    disk.room = 100  # full in the middle of a record
    train(callback, 1, 8)
    assert [record.getMessage() for record in caplog.records] == [
        'the event file could not be written: [Errno 28] No space left on device; the next event '
        'tries again'
    ]
    disk.room = 10**9
    train(callback, 9, 12)
    steps = steps_of(read(tmp_path))
    assert steps['train/loss'] == [4, 8, 12] and steps['train_batch/loss'] == [3, 6, 9, 12]
    disk.room = 0
    train(callback, 13, 15)
    # CallbackList records it: the exit status says that the file is incomplete.
    with pytest.raises(OSError):
        callback.close()


def test_a_folder_that_vanishes_stops_nothing(tmp_path, caplog):
    folder = tmp_path / 'run'
    folder.mkdir()
    callback, _ = begun(folder)
    train(callback, 1, 4)
    shutil.rmtree(str(folder))
    callback.on_train_end(train(callback, 5, 12))
    callback.close()
    assert not folder.exists()
    assert [record.getMessage().split(':')[1] for record in caplog.records] == [
        ' no Projector files at step 8',
        ' no end at step 12',
    ]


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / 'run').write_text('a file where the folder should be')
    callback, _ = begun(tmp_path / 'run')
    callback.on_train_end(train(callback, 1, 4))
    callback.on_rewind(2)
    callback.close()
    assert len(caplog.records) == 1 and caplog.records[0].getMessage().startswith(
        'TensorBoard: no event file at step 0'
    )


def test_records_are_those_of_tensorflow(tmp_path):
    """The reader of TensorFlow checks length and checksums. Files created within one second have
    increasing names.
    """
    first, second, third = (
        summaries.EventFile(str(tmp_path), suffix) for suffix in ('', '.end', '')
    )
    first.add(7, [summaries.Value(tag='a', simple_value=0.5)])
    assert first.path < second.path < third.path and second.path.endswith('.end')
    events = list(tf.train.summary_iterator(first.path))
    assert events[0].file_version == 'brain.Event:2' and events[1].step == 7
    assert (events[1].summary.value[0].tag, events[1].summary.value[0].simple_value) == ('a', 0.5)
    # The check value of RFC 3720.
    assert (
        summaries.masked_crc32c(b'123456789')
        == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    )


@pytest.mark.parametrize(
    'classes, size', [(3, (640, 600)), (20, (640, 600)), (50, (900, 860)), (300, (900, 860))]
)
def test_confusion_matrix(classes, size):
    labels = np.arange(900) % classes
    predictions = np.where(np.arange(900) == 0, 1, labels)
    predictions[5] = -1  # not a class: it has no column
    figure = confusion.confusion_matrix(labels, predictions, classes)
    assert Image.open(io.BytesIO(encoding.png_bytes(figure))).size == size
    axes = figure.axes[0]
    assert axes.get_title() == '898 of 900 right (99.78%)'
    counts = {text.get_position(): int(text.get_text()) for text in axes.texts}
    # Class 0 has 300 samples, one taken for class 1; class 2 has 300, one without a prediction.
    if classes == 3:
        assert counts == {(0, 0): 299, (1, 0): 1, (1, 1): 300, (2, 2): 299}
    assert len(counts) == (0 if classes > 20 else classes + 1)


def test_a_confusion_matrix_of_thousands_of_classes_is_refused():
    with pytest.raises(ValueError, match='num_classes: expected at most 1000'):
        confusion.confusion_matrix(np.zeros(3, int), np.zeros(3, int), 10000)
