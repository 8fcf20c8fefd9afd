"""The folder of a run when others move, remove or replace it."""

import os
import shutil
import signal

import pytest

import toys
from callbacks.base import Callback
from gitloss.errors import FolderLost
from runs import Does, content, fit, trainer_of
from trainers import callback_list, checkpoints, run


def trained(settings, monkeypatch, *extra):
    """The exit status of the command with all its callbacks, `extra` before them."""
    build = callback_list.build_callbacks
    with monkeypatch.context() as patch:
        patch.setattr(callback_list, 'build_callbacks', lambda *args: [*extra, *build(*args)])
        return run.main(toys.flags_of(settings))


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
    trainer = trainer_of(settings)
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


@pytest.mark.parametrize('resume', ['auto', 'never'])
@pytest.mark.parametrize('name', ['data', 'run/ckpt/step-00000012', 'home'])
def test_a_folder_of_something_else_is_not_moved_aside(tmp_path, capsys, name, resume):
    """The data, a checkpoint, a folder with a thesis: one line, and all stays as it is."""
    settings = toys.options(tmp_path)
    for file in ('run/ckpt/step-00000012/manifest.json', 'home/thesis.tex'):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text('years of work')
    before = content(tmp_path)
    path = str(tmp_path / name)
    flags = toys.flags_of(settings) + ['--exp_save_dir=' + path, '--resume=' + resume]
    assert run.main(flags) == 2
    err = capsys.readouterr().err
    expected = 'trainers.run: --exp_save_dir: expected a new or empty folder, or that of a run. '
    assert err.startswith(f'{expected}Received: {path}, with other files') and err.count('\n') == 1
    assert content(tmp_path) == before
