"""The TensorBoard callback where pictures fail, are not wanted, or nothing can be written."""

import json
import os
import shutil

import pytest

from callbacks import summaries
from events import begun, read, steps_of, train
from gitloss.figures import plots, view


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
