"""Damage to the files of a checkpoint, read in every way there is."""

import functools
import io
import itertools
import os
import random
import shutil

from damage import manifests
from damage.cases import SPOILERS, confined, expecting, lasting_folder, logging_to, said
from damage.manifests import DATA, INDEX, MANIFEST, resign
from gitloss.errors import DamagedCheckpoint
from test_checkpoints import Session
from trainers import checkpoints
from trainers.checkpoints.manifest import KINDS


@functools.lru_cache(None)
def two_checkpoints():
    """A folder with the checkpoints of steps 1 and 2 of a variable [step, step, step], and the
    session that reads them.
    """
    session = Session().__enter__()
    store = checkpoints.CheckpointStore(lasting_folder())
    for step in (1, 2):
        session.session.run(session.assign, {session.value: [step] * 3})
        store.save(
            session.session,
            session.saver,
            step,
            {
                'epoch': 1,
                'options': {'seed': 1},
                'dataset': {'name': 'mnist'},
                'metrics': {'valid_acc': 0.5},
                'best': {},
                'versions': {},
                'logs': {'step': step},
                'totals': {},
                'timing': {'seconds': 1.0, 'steps': 1},
                'callbacks': {'History': {'rows': []}},
            },
        )
    return store.folder, session


def _read(folder, spoil):
    """Damages a copy of the newer of two checkpoints, and reads it in every way there is."""
    source, run_of = two_checkpoints()
    store = checkpoints.CheckpointStore(os.path.join(folder, 'ckpt'))
    shutil.copytree(source, store.folder)
    newest = os.path.join(store.folder, 'step-00000002')
    spoil(newest)
    with confined(folder), logging_to(io.StringIO()) as lines:
        try:
            found = checkpoints.read(newest, checkpoints.TO_CONTINUE)
        except DamagedCheckpoint as error:
            said(error, newest)
            assert store.newest(checkpoints.TO_CONTINUE).step == 1
            assert lines.getvalue().count('\n') == 1 and 'passed over' in lines.getvalue()
            outcome = 'passed over'
        else:
            assert found == store.newest(checkpoints.TO_CONTINUE) and found.step == 2
            for name, kind in KINDS.items():
                assert type(found.manifest.get(name, kind())) is kind
            outcome = _restored(run_of, found)
        try:
            _restored(run_of, checkpoints.find(folder, '--ckpt_path'))
        except ValueError as error:
            said(error, newest)
        store.prune(2)
        assert os.path.join(store.folder, 'step-00000001') in store.paths()
    return outcome


def _restored(run_of, found):
    try:
        checkpoints.restore(run_of.session, run_of.saver, found)
    except DamagedCheckpoint as error:
        return said(error, found.path)
    assert run_of.session.run(run_of.w).tolist() == [2, 2, 2]
    return 'correct'


def _case(kind, name, spoil, *outcomes):
    return expecting(kind, name, lambda folder: _read(folder, spoil), *outcomes)


def _spoilt(name, spoil, chance, sign=False):
    def change(path):
        with open(os.path.join(path, name), 'rb') as file:
            content = file.read()
        with open(os.path.join(path, name), 'wb') as file:
            file.write(spoil(content, chance))
        if sign:
            resign(path)

    return change


# --- the folder -----------------------------------------------------------------------------------


def exchanged(path):
    os.rename(os.path.join(path, DATA), os.path.join(path, 'x'))
    os.rename(os.path.join(path, INDEX), os.path.join(path, DATA))
    os.rename(os.path.join(path, 'x'), os.path.join(path, INDEX))


def exchanged_and_signed(path):
    exchanged(path)
    resign(path)


def older(path):
    shutil.rmtree(path)
    shutil.copytree(path[:-1] + '1', path)


def a_file(path):
    shutil.rmtree(path)
    open(path, 'w').close()


def folders(path):
    for name in os.listdir(path):
        os.remove(os.path.join(path, name))
        os.mkdir(os.path.join(path, name))


def nothing(path):
    shutil.rmtree(path)
    os.mkdir(path)


def a_link(path):
    os.rename(path, path + '.elsewhere')
    os.symlink(path + '.elsewhere', path)


def one_more(path):
    shutil.copy(os.path.join(path, INDEX), os.path.join(path, 'one-more'))


def cases():
    for seed, (name, spoil) in enumerate(itertools.product((DATA, INDEX, MANIFEST), SPOILERS * 4)):
        yield _case(
            'checkpoint file',
            f'{name[-8:]}-{spoil.__name__}-{seed}',
            _spoilt(name, spoil, random.Random(4000 + seed)),
        )
    for seed, (name, spoil) in enumerate(itertools.product((DATA, INDEX), SPOILERS * 2)):
        yield _case(
            'checkpoint file, sums made right',
            f'{name[-8:]}-{spoil.__name__}-{seed}',
            _spoilt(name, spoil, random.Random(5000 + seed), sign=True),
        )
    for spoil, outcome in [
        (exchanged, 'passed over'),
        (exchanged_and_signed, 'refused'),
        (older, 'passed over'),
        (a_file, 'passed over'),
        (folders, 'passed over'),
        (nothing, 'passed over'),
        (a_link, 'correct'),
        (one_more, 'correct'),
    ]:
        yield _case('checkpoint folder', spoil.__name__, spoil, outcome)
    for name, spoil, outcomes in manifests.damages():
        yield _case('manifest', name, spoil, *outcomes)
