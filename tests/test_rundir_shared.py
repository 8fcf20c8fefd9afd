"""The folder of a run that is shared: what lies there at its start, foreign names in ckpt/, and
evaluate and export beside a training.
"""

import errno
import fcntl
import json
import os
import shutil

import pytest

import toys
from gitloss import data, files
from gitloss.errors import DamagedCheckpoint
from runs import Does, content, fit
from test_checkpoints import Session
from trainers import checkpoints, evaluate, export
from trainers.checkpoints import rundir
from trainers.engine.training import TrainingRuntime


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """The ckpt folder of a run with checkpoints of the steps 4, 8 and 12, none of them the best."""
    settings = toys.options(tmp_path_factory.mktemp('finished'))
    fit(settings)
    return settings.run_dir + '/ckpt'


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
    mine.write_text('mine')
    os.symlink(str(mine), settings.run_dir + '/options.json.tmp')
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


@pytest.mark.usefixtures('forked_parity')
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
