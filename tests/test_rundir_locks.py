"""The locks of a run: of several starts one gets the folder; what is no file is no lock."""

import contextlib
import errno
import fcntl
import os
import threading
import types

import pytest

from callbacks.progress import Progress
from gitloss import files
from trainers.checkpoints import rundir


def test_a_deleted_lock_lets_no_second_trainer_in(tmp_path):
    path = str(tmp_path / 'run')
    first, second = rundir.RunDir(path), rundir.RunDir(path)
    first.claim()
    os.remove(path + '/run.lock')
    with pytest.raises(ValueError, match='in use by process unknown'):
        second.claim()
    assert os.listdir(path) == []
    first.release()
    second.claim()
    second.release()


def test_where_folders_cannot_be_locked_the_file_is(tmp_path, monkeypatch):
    def flock(file, operation, real=fcntl.flock):
        if isinstance(file, int):  # a folder's descriptor
            raise OSError(errno.ENOTSUP, 'no locks')
        real(file, operation)

    monkeypatch.setattr(fcntl, 'flock', flock)
    first, second = (rundir.RunDir(str(tmp_path)) for _ in range(2))
    first.claim()
    with pytest.raises(ValueError, match=f'in use by process {os.getpid()}'):
        second.claim()
    first.release()
    second.claim()
    second.release()


def test_of_starts_at_the_same_instant_one_gets_the_folder(tmp_path):
    """Twenty rounds of four threads; a fifth one deletes the lock again and again."""
    path, over = str(tmp_path / 'run'), threading.Event()

    def delete():
        while not over.is_set():
            with contextlib.suppress(OSError):
                os.remove(path + '/run.lock')

    def start():
        folder = rundir.RunDir(path)
        barrier.wait()
        with contextlib.suppress(ValueError):
            folder.claim()
            got.append(folder)

    deleter = threading.Thread(target=delete)
    deleter.start()
    try:
        for _ in range(20):
            got, barrier = [], threading.Barrier(4)
            threads = [threading.Thread(target=start) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(got) == 1
            got[0].release()
    finally:
        over.set()
        deleter.join()


def test_a_folder_moved_aside_while_another_starts_is_not_taken_for_the_run(tmp_path, monkeypatch):
    """The second start has opened the folder when the first one moves it aside."""
    path, lock, moved = str(tmp_path / 'run'), files.Folder.lock, []

    def locking(self, operation):
        if not moved:
            moved.append(os.rename(path, path + '.1'))
        return lock(self, operation)

    monkeypatch.setattr(files.Folder, 'lock', locking)
    folder = rundir.RunDir(path)
    folder.claim()
    folder.check()
    assert os.listdir(path) == ['run.lock'] and os.listdir(path + '.1') == []
    folder.release()


def put(kind, path, mine):
    """A thing that is no file, or a link to the file `mine`."""
    mine.write_text('mine')
    if kind == 'link':
        os.symlink(str(mine), path)
    elif kind == 'fifo':
        os.mkfifo(path)
    else:
        os.mkdir(path)


KINDS = pytest.mark.parametrize('kind', ['link', 'fifo', 'folder'])


@KINDS
def test_a_lock_that_is_no_file_is_refused(tmp_path, kind):
    """The target of a link keeps its content; a FIFO does not make the run wait."""
    put(kind, str(tmp_path / 'run.lock'), tmp_path / 'mine')
    folder = rundir.RunDir(str(tmp_path))
    with pytest.raises(
        ValueError, match='--exp_save_dir: expected .*written. Received: .*run.lock'
    ):
        folder.claim()
    assert (tmp_path / 'mine').read_text() == 'mine'
    os.rename(str(tmp_path / 'run.lock'), str(tmp_path / 'theirs'))
    folder.claim()  # nothing was kept locked
    folder.release()


@KINDS
def test_a_log_that_is_no_file_is_an_error(tmp_path, kind):
    put(kind, str(tmp_path / 'train_0.log'), tmp_path / 'mine')
    progress = Progress(log_file='train_0.log', header=['first'])
    progress.handle = types.SimpleNamespace(run_dir=str(tmp_path), steps=1, step=0)
    with pytest.raises(OSError, match='train_0.log'):
        progress.on_train_begin()
    progress.close()
    assert (tmp_path / 'mine').read_text() == 'mine'
