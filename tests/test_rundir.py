"""The folder of a run when others move, remove, replace, share or fill it."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import threading
import types

import pytest

import toys
from callbacks.base import Callback
from callbacks.checkpoint import Checkpoint
from callbacks.history import History
from callbacks.progress import Progress
from gitloss import data, files
from gitloss.errors import DamagedCheckpoint, FolderLost
from test_checkpoints import Session
from trainers import callback_list, checkpoints, devices, evaluate, export, run
from trainers.checkpoints import rundir
from trainers.engine.trainer import Trainer
from trainers.engine.training import TrainingRuntime


def content(folder):
    """{relative path: bytes} of all files; a link counts as its target's name."""
    found = {}
    for place, folders, names in os.walk(str(folder)):
        for path in (os.path.join(place, name) for name in folders + names):
            if os.path.islink(path):
                found[os.path.relpath(path, str(folder))] = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, 'rb') as file:
                    found[os.path.relpath(path, str(folder))] = file.read()
    return found


class Does(Callback):
    """Calls a function once: after a step, in a measurement or at the end of the run."""

    def __init__(self, function, when):
        self._function, self._when = function, when

    def on_train_batch_end(self, batch, logs=None):
        if self._when == batch:
            self._function()

    def on_epoch_end(self, epoch, logs=None):
        if self._when == f'measurement {epoch}':
            self._function()

    def on_train_end(self, logs=None):
        if self._when == 'end':
            self._function()


def trained(settings, monkeypatch, *extra):
    """The exit status of the command with all its callbacks, `extra` before them."""
    build = callback_list.build_callbacks
    with monkeypatch.context() as patch:
        patch.setattr(callback_list, 'build_callbacks', lambda *args: [*extra, *build(*args)])
        return run.main(toys.flags_of(settings))


def fit(settings, *extra):
    callbacks = [*extra, History(), Checkpoint()]
    dataset = data.load('mnist', settings.data_folder)
    return Trainer(settings, dataset, callbacks, devices.choose(settings)).fit()


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """The ckpt folder of a run with checkpoints of the steps 4, 8 and 12, none of them the best."""
    settings = toys.options(tmp_path_factory.mktemp('finished'))
    fit(settings)
    return settings.run_dir + '/ckpt'


# --- the folder of the run is no longer that of the run -------------------------------------------


@pytest.fixture(scope='module')
def other(tmp_path_factory):
    """A finished run with seed 2, to be put in the place of another."""
    settings = toys.options(tmp_path_factory.mktemp('other'), seed=2, steps=4)
    assert run.main(toys.flags_of(settings)) == 0
    return settings.run_dir


def lose(how, folder, other):
    """Moves, removes or replaces the folder `run`. Returns where the run then is, or None."""
    moved = folder + '_old'
    if how in ('removed', 'made anew'):
        shutil.rmtree(folder)
        moved = None
    else:
        os.rename(folder, moved)
    if how == 'made anew':
        os.mkdir(folder)
    elif how == 'replaced':
        shutil.copytree(other, folder)
    elif how == 'linked':
        os.symlink(other, folder)
    return moved


@pytest.mark.parametrize(
    'how, when',
    [
        ('removed', 'measurement 2'),
        ('removed', 'end'),
        ('made anew', 5),
        ('moved', 5),
        ('replaced', 'measurement 2'),
        ('replaced', 'end'),
        ('linked', 5),
    ],
)
def test_a_run_whose_folder_is_lost_ends_in_one_line_and_writes_nothing(
    tmp_path, monkeypatch, capsys, other, how, when
):
    """Measurements are at 4, 8 and 12: the step 4 is saved before. What then is at the path does
    not change, nor what was saved.
    """
    settings, seen = toys.options(tmp_path), {}
    path = settings.run_dir

    def change():
        saved = content(path + '/ckpt')
        moved = lose(how, path, other)
        seen.update(saved=saved, moved=moved, there=content(path))

    assert trained(settings, monkeypatch, Does(change, when)) == 1
    received = 'none, it is gone' if how in ('removed', 'moved') else 'another folder'
    lines = capsys.readouterr().err.splitlines()
    assert (
        [line for line in lines if 'exp_save_dir' in line]
        == lines[-1:]
        == [
            f'trainers.run: --exp_save_dir: expected the folder of this run at {path}. '
            f'Received: {received}'
        ]
    )
    assert not any('warning' in line or 'Traceback' in line for line in lines)
    assert os.path.lexists(path) == (how not in ('removed', 'moved'))
    assert content(path) == seen['there']
    if seen['moved']:
        assert content(seen['moved'] + '/ckpt') == seen['saved'] and seen['saved']


def test_a_stopped_run_does_not_save_into_another_run(tmp_path, monkeypatch, other):
    """The case of `mv run run_old`, a new run at `run`, SIGTERM to the old one."""
    settings = toys.options(tmp_path, keep_checkpoints=1)

    def change():
        lose('replaced', settings.run_dir, other)
        os.kill(os.getpid(), signal.SIGTERM)

    assert trained(settings, monkeypatch, Does(change, 5)) == 1
    assert content(settings.run_dir) == content(other)


def test_a_folder_replaced_while_a_checkpoint_is_written(tmp_path, monkeypatch, other):
    """The other run writes the same step: its unfinished folder has the name of ours."""
    settings = toys.options(tmp_path)
    write, theirs = checkpoints.manifest.write, os.path.join('ckpt', 'step-00000008.tmp', 'model')

    def writing(path, step, contents):
        write(path, step, contents)
        if step == 8:
            lose('replaced', settings.run_dir, other)
            os.mkdir(os.path.dirname(os.path.join(settings.run_dir, theirs)))
            with open(os.path.join(settings.run_dir, theirs), 'w') as file:
                file.write('half')

    monkeypatch.setattr(checkpoints.manifest, 'write', writing)
    with pytest.raises(FolderLost, match='another folder'):
        fit(settings)
    assert content(settings.run_dir) == dict(content(other), **{theirs: b'half'})


def test_a_folder_that_is_moved_and_linked_back_is_still_the_run(tmp_path, monkeypatch, capsys):
    """As when a disk is full: the run is moved to another place, and a link leads there."""
    settings = toys.options(tmp_path)

    def change():
        os.rename(settings.run_dir, str(tmp_path / 'large'))
        os.symlink(str(tmp_path / 'large'), settings.run_dir)

    assert trained(settings, monkeypatch, Does(change, 5)) == 0
    assert (tmp_path / 'large' / 'ckpt' / 'step-00000012').is_dir()
    assert (tmp_path / 'large' / 'report.html').is_file()


def test_a_continued_run_knows_its_folder_again(tmp_path, other):
    fit(toys.options(tmp_path, steps=8))
    settings = toys.options(tmp_path)
    with pytest.raises(FolderLost):
        fit(settings, Does(lambda: lose('replaced', settings.run_dir, other), 9))
    assert content(settings.run_dir) == content(other)


def test_a_rollback_does_not_restore_another_run(tmp_path, other):
    settings = toys.options(tmp_path)
    trainer = Trainer(
        settings, data.load('mnist', settings.data_folder), [], devices.choose(settings)
    )
    trainer.runtime.folder.claim()
    lose('replaced', settings.run_dir, other)
    with pytest.raises(FolderLost):
        trainer.saving.store.newest()
    trainer.runtime.folder.release()


def test_ckpt_that_is_removed_is_made_again(tmp_path):
    settings = toys.options(tmp_path)
    fit(settings, Does(lambda: shutil.rmtree(settings.run_dir + '/ckpt'), 5))
    assert os.listdir(settings.run_dir + '/ckpt') == ['step-00000008', 'step-00000012']


@pytest.mark.parametrize('how', ['linked', 'replaced'])
def test_ckpt_of_another_run_is_not_written_to(tmp_path, other, how):
    settings = toys.options(tmp_path, keep_checkpoints=1)
    theirs = content(other)
    with pytest.raises(FolderLost, match='/ckpt: expected the folder with the checkpoints of this'):
        fit(settings, Does(lambda: lose(how, settings.run_dir + '/ckpt', other + '/ckpt'), 5))
    assert content(settings.run_dir + '/ckpt') == content(other + '/ckpt')
    assert content(other) == theirs and os.listdir(settings.run_dir + '/ckpt_old')


def test_a_checkpoint_aside_needs_the_folder_of_the_run_but_may_be_elsewhere(tmp_path):
    """`aside` writes at step 5 outside the run; at step 6, after its removal, nowhere."""

    class Aside(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 6:
                shutil.rmtree(settings.run_dir)
            if batch in (5, 6):
                self.handle.save_aside(str(tmp_path / 'elsewhere' / str(batch)))

    settings = toys.options(tmp_path)
    with pytest.raises(FolderLost):
        fit(settings, Aside())
    assert os.listdir(str(tmp_path / 'elsewhere')) == ['5']
    assert checkpoints.find(str(tmp_path / 'elsewhere' / '5'), '--ckpt_path').step == 5


def test_a_users_callback_writes_through_the_same_door(tmp_path):
    """`write` makes the folders of a name; with the run's folder it makes none."""

    class Mine(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                shutil.rmtree(settings.run_dir)
            self.handle.write('mine/of/step.txt', f'{batch}')
            with open(os.path.join(self.handle.run_dir, 'mine', 'of', 'step.txt')) as file:
                seen.append(file.read())

    settings, seen = toys.options(tmp_path), []
    with pytest.raises(FolderLost):
        fit(settings, Mine())
    assert seen == ['1', '2'] and not os.path.exists(settings.run_dir)


# --- the locks ------------------------------------------------------------------------------------


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


# --- the start of a run in a folder with files ----------------------------------------------------


def begin(settings, finished, resume):
    """Begins a run at its folder, with the facts of the finished run."""
    folder, store = (
        rundir.RunDir(settings.run_dir),
        checkpoints.CheckpointStore(settings.run_dir + '/ckpt'),
    )
    saved = checkpoints.CheckpointStore(finished).newest().manifest
    try:
        return folder.begin(resume, store, saved['options'], saved['dataset'])
    finally:
        folder.release()


def test_a_link_of_the_temporary_name_of_options_json_is_not_followed(tmp_path, finished):
    settings, mine = toys.options(tmp_path), tmp_path / 'mine'
    shutil.copytree(finished, settings.run_dir + '/ckpt')
    put('link', settings.run_dir + '/options.json.tmp', mine)
    assert begin(settings, finished, 'auto').step == 12
    assert mine.read_text() == 'mine'
    assert sorted(os.listdir(settings.run_dir)) == ['ckpt', 'options.json', 'run.lock']


def test_a_linked_run_folder_is_moved_aside_on_its_own_disk(tmp_path, finished):
    """`link` leads to `disk/run`: it stays, and the old run becomes disk/run.1."""
    disk, link = tmp_path / 'disk', str(tmp_path / 'link')
    shutil.copytree(finished, str(disk / 'run' / 'ckpt'))
    os.symlink(str(disk / 'run'), link)
    assert begin(toys.options(tmp_path, exp_save_dir=link), finished, 'never') is None
    assert os.readlink(link) == str(disk / 'run')
    assert sorted(os.listdir(str(disk))) == ['run', 'run.1']
    assert content(disk / 'run.1' / 'ckpt') == content(finished)
    assert sorted(os.listdir(link)) == ['options.json', 'run.lock']
    assert sorted(os.listdir(str(tmp_path))) == ['data', 'disk', 'link']


@pytest.mark.parametrize('resume', ['auto', 'never'])
@pytest.mark.parametrize('name', ['data', 'run/ckpt/step-00000012', 'home'])
def test_a_folder_of_something_else_is_not_moved_aside(tmp_path, capsys, finished, name, resume):
    """The data, a checkpoint, a folder with a thesis: one line, and all stays as it is."""
    settings = toys.options(tmp_path)
    shutil.copytree(finished, str(tmp_path / 'run' / 'ckpt'))
    (tmp_path / 'home').mkdir()
    (tmp_path / 'home' / 'thesis.tex').write_text('years of work')
    before = content(tmp_path)
    path = str(tmp_path / name)
    flags = toys.flags_of(settings) + ['--exp_save_dir=' + path, '--resume=' + resume]
    assert run.main(flags) == 2
    err = capsys.readouterr().err
    expected = 'trainers.run: --exp_save_dir: expected a new or empty folder, or that of a run. '
    assert err.startswith(f'{expected}Received: {path}, with other files') and err.count('\n') == 1
    assert content(tmp_path) == before


def test_a_dangling_link_is_no_free_name(tmp_path, finished):
    settings = toys.options(tmp_path)
    shutil.copytree(finished, settings.run_dir + '/ckpt')
    os.symlink('nowhere', settings.run_dir + '.1')
    assert begin(settings, finished, 'never') is None
    assert os.readlink(settings.run_dir + '.1') == 'nowhere'
    assert content(settings.run_dir + '.2/ckpt') == content(finished)


# --- what others put into ckpt/ -------------------------------------------------------------------


def test_foreign_names_in_ckpt_stay(tmp_path):
    """Of the unfinished only those of a step are ours; of a link only the link."""
    ckpt, mine = tmp_path / 'ckpt', tmp_path / 'mine'
    store = checkpoints.CheckpointStore(str(ckpt), keep=1)
    foreign = ['mine.tmp', 'step-1.tmp', 'step-00000006.tmp.tmp', 'step-٠٠٠٠٠٠٠٤.tmp', 'mine']
    for name in foreign + ['step-00000007.tmp']:
        (ckpt / name).mkdir(parents=True)
        (ckpt / name / 'file').write_text('mine')
    mine.mkdir()
    (mine / 'file').write_text('mine')
    for name in ('step-00000006.tmp', 'step-00000005', 'step-00000002.old'):
        os.symlink(str(mine), str(ckpt / name))
    (ckpt / 'step-00000008.tmp').write_text('a file')
    with Session() as session:
        session.save(store, 5)
        session.save(store, 6)
    assert sorted(os.listdir(str(ckpt))) == sorted(foreign + ['step-00000006'])
    assert store.newest().step == 6 and (mine / 'file').read_text() == 'mine'


# --- evaluate and export beside a training --------------------------------------------------------


class Live:
    """A run whose newest checkpoint is that of step 8 until `goes_on`, with one checkpoint kept."""

    def __init__(self, folder, finished):
        self.run_dir, self.pruned, self._is_newer = str(folder / 'run'), [], False
        self.flags = [f'--ckpt_path={self.run_dir}']
        self._newer = finished + '/step-00000012'
        self._store = checkpoints.CheckpointStore(self.run_dir + '/ckpt', keep=1)
        shutil.copytree(finished, self._store.folder)
        shutil.rmtree(self._store.paths()[-1])

    def goes_on(self):
        if not self._is_newer:
            self._is_newer = True
            shutil.copytree(self._newer, self._store.folder + '/step-00000012')
            self.pruned.append(self.prune())

    def prune(self):
        """The steps that are left."""
        self._store.prune(12)
        return [int(os.path.basename(path)[5:]) for path in self._store.paths()]

    def going_on_at(self, monkeypatch, owner, name):
        """It goes on when a function is called for the first time."""

        real = getattr(owner, name)

        def wrapped(*args, **keywords):
            self.goes_on()
            return real(*args, **keywords)

        monkeypatch.setattr(owner, name, wrapped)


@pytest.fixture
def live(tmp_path, finished):
    return Live(tmp_path, finished)


def without_locks(monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOTSUP, 'no locks')

    monkeypatch.setattr(fcntl, 'flock', flock)


def test_a_checkpoint_in_use_is_pruned_when_it_no_longer_is(live, caplog):
    first, second = (checkpoints.find(live.run_dir, '--ckpt_path') for _ in range(2))
    live.goes_on()
    assert first.step == 8 and live.pruned == [[8, 12]]
    del first
    assert live.prune() == [8, 12]
    del second
    assert live.prune() == [12] and not caplog.records


@pytest.mark.parametrize('locks, expected', [(True, 8), (False, 12)])
@pytest.mark.parametrize('command', [evaluate, export])
def test_a_checkpoint_pruned_beside_evaluate_and_export_leads_to_the_next(
    live, monkeypatch, capsys, tmp_path, finished, command, locks, expected
):
    """The training goes on after the choice of step 8, before its values are restored."""
    if not locks:
        without_locks(monkeypatch)
    if command is evaluate:
        live.going_on_at(monkeypatch, data, 'load')
        live.flags += [
            '--device=cpu',
            '--data_path=' + os.path.dirname(os.path.dirname(finished)) + '/data',
        ]
    else:
        live.going_on_at(monkeypatch, export, 'export_folder')
    assert command.main(live.flags) == 0
    printed = capsys.readouterr()
    assert live.pruned == [[8, 12] if locks else [12]] and printed.err == ''
    if command is evaluate:
        found = json.loads(printed.out)
        assert (found['step'], found['checkpoint'][-1]) == (expected, str(expected)[-1])
    else:
        with open(live.run_dir + '/export/gitloss.json') as file:
            assert json.load(file)['checkpoint']['step'] == expected
    assert live.prune() == [12]


@pytest.mark.parametrize('owner, name', [(files, 'Folder'), (files.Folder, 'lock')])
def test_a_checkpoint_that_vanishes_between_choice_and_lock_leads_to_the_next(
    live, monkeypatch, owner, name
):
    live.going_on_at(monkeypatch, owner, name)
    assert checkpoints.find(live.run_dir, '--ckpt_path').step == 12


def test_a_named_checkpoint_that_vanishes_is_an_error_of_one_line(live, monkeypatch, capsys):
    """There is no next one of a checkpoint that was asked for by its name."""
    without_locks(monkeypatch)
    live.going_on_at(monkeypatch, export, 'export_folder')
    path = live.run_dir + '/ckpt/step-00000008'
    assert export.main(['--ckpt_path=' + path]) == 2
    assert capsys.readouterr().err.splitlines() == [
        'trainers.export: --ckpt_path: expected a checkpoint, or a folder with checkpoints. '
        f'Received: {path!r}'
    ]


def test_damage_and_dangling_links_do_not_lead_to_the_next(live):
    """What is there and cannot be read was chosen: it is named, once."""
    with open(live.run_dir + '/ckpt/step-00000008/model.index', 'ab') as file:
        file.write(b'x')
    with pytest.raises(DamagedCheckpoint, match='step-00000008/model.index'):
        checkpoints.find(live.run_dir, '--ckpt_path')
    os.symlink('nowhere', live.run_dir + '/ckpt/step-00000009')
    with pytest.raises(DamagedCheckpoint, match='step-00000009: expected a folder'):
        checkpoints.find(live.run_dir, '--ckpt_path')


def test_fine_tuning_beside_a_training_pins_its_checkpoint_until_it_is_loaded(
    live, monkeypatch, tmp_path, caplog
):
    live.going_on_at(monkeypatch, TrainingRuntime, 'open')
    left = []
    settings = toys.options(
        tmp_path, init_checkpoint=live.run_dir, steps=4, exp_save_dir=str(tmp_path / 'tuned')
    )
    with caplog.at_level('INFO', logger='gitloss'):
        fit(settings, Does(lambda: left.append(live.prune()), 1))
    assert live.pruned == [[8, 12]] and left == [[12]]
    assert f'weights from {live.run_dir}/ckpt/step-00000008' in caplog.text
