import json
import os
import shutil

import pytest

from gitloss.backend import tf
from gitloss.errors import DamagedCheckpoint
from trainers import checkpoints
from trainers.checkpoints import manifest as manifests


class Session:
    """A variable `w`, its saver and a session."""

    def __enter__(self):
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.w = tf.get_variable(
                'w', [3], initializer=tf.zeros_initializer(), use_resource=True
            )
            self.value = tf.placeholder(tf.float32, [3])
            self.assign = tf.assign(self.w, self.value)
            self.saver = checkpoints.Saver([self.w])
        self.session = tf.Session(graph=self.graph)
        return self

    def __exit__(self, *_):
        self.session.close()

    def save(self, store, step, metric=None):
        self.session.run(self.assign, {self.value: [step] * 3})
        return store.save(
            self.session,
            self.saver,
            step,
            {
                'metrics': {} if metric is None else {'valid_acc': metric},
                'best': {'name': 'valid_acc', 'higher_is_better': True},
            },
        )


@pytest.fixture
def run():
    with Session() as session:
        yield session


@pytest.mark.parametrize('name', ['ckpt', 'run[1]', 'a*', 'a?', 'a\\b'])
def test_what_is_saved_comes_back(run, tmp_path, name):
    """Also from folders that TensorFlow's readers take for patterns."""
    store = checkpoints.CheckpointStore(str(tmp_path / name))
    run.save(store, 7, 0.5)
    found = store.newest()
    assert checkpoints.variables(found) == {'w': (3,)}
    assert (found.step, found.manifest['metrics']) == (7, {'valid_acc': 0.5})
    run.session.run(run.assign, {run.value: [0, 0, 0]})
    checkpoints.restore(run.session, run.saver, found)
    assert run.session.run(run.w).tolist() == [7, 7, 7]


def test_newest_n_and_the_best_are_kept(run, tmp_path):
    """Accuracies 0.1, 0.9, 0.2, 0.3, 0.4 at steps 1 to 5, two kept: steps 4, 5 and the best, 2."""
    store = checkpoints.CheckpointStore(str(tmp_path / 'ckpt'), keep=2)
    for step, metric in enumerate((0.1, 0.9, 0.2, 0.3, 0.4), 1):
        run.save(store, step, metric)
    assert [os.path.basename(path) for path in store.paths()] == [
        'step-00000002',
        'step-00000004',
        'step-00000005',
    ]
    assert os.path.basename(store.best()) == 'step-00000002'


def test_without_metrics_there_is_no_best(run, tmp_path):
    store = checkpoints.CheckpointStore(str(tmp_path / 'ckpt'))
    run.save(store, 1)
    assert store.best() is None and store.newest().step == 1


def _damage(path, how):
    data = os.path.join(path, 'model.data-00000-of-00001')
    manifest = os.path.join(path, 'manifest.json')
    if how == 'truncated':
        with open(data, 'r+b') as file:
            file.truncate(3)
    elif how == 'bit flipped':
        with open(data, 'r+b') as file:
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 1]))
    elif how == 'file missing':
        os.remove(data)
    elif how == 'manifest cut':
        with open(manifest, 'r+b') as file:
            file.truncate(40)
    elif how == 'manifest altered':
        with open(manifest) as file:
            content = json.load(file)
        content['step'] += 1
        with open(manifest, 'w') as file:
            json.dump(content, file)
    elif how == 'manifest of another kind':
        with open(manifest, 'w') as file:
            json.dump([1, 2], file)


@pytest.mark.parametrize(
    'how',
    [
        'truncated',
        'bit flipped',
        'file missing',
        'manifest cut',
        'manifest altered',
        'manifest of another kind',
    ],
)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(run, tmp_path, how, caplog):
    store = checkpoints.CheckpointStore(str(tmp_path / 'ckpt'))
    run.save(store, 1)
    _damage(run.save(store, 2), how)
    with caplog.at_level('WARNING', logger='gitloss'):
        assert store.newest().step == 1
    assert 'step-00000002' in caplog.text
    with pytest.raises(DamagedCheckpoint, match='step-00000002'):
        checkpoints.read(store.paths()[-1])


def test_a_half_written_checkpoint_is_none(run, tmp_path):
    """A kill during the write leaves a folder of another name, which the next save of that step
    removes.
    """
    store = checkpoints.CheckpointStore(str(tmp_path / 'ckpt'))
    run.save(store, 1)
    half = tmp_path / 'ckpt' / 'step-00000002.tmp'
    half.mkdir()
    (half / 'model.index').write_text('half')
    assert store.newest().step == 1
    run.save(store, 2)
    assert store.newest().step == 2 and not half.exists()


def test_names_in_a_manifest_cannot_leave_the_folder(run, tmp_path):
    store = checkpoints.CheckpointStore(str(tmp_path / 'ckpt'))
    path = run.save(store, 1)
    with open(os.path.join(path, 'manifest.json')) as file:
        manifest = json.load(file)
    manifest['files'] = {'../../secret': {'bytes': 1, 'sha256': ''}}
    manifest['manifest_sha256'] = manifests.digest_of(manifest)
    with open(os.path.join(path, 'manifest.json'), 'w') as file:
        json.dump(manifest, file)
    with pytest.raises(DamagedCheckpoint, match='plain file names'):
        checkpoints.read(path)


def test_a_folder_with_digits_of_another_script_is_no_checkpoint(run, tmp_path):
    """step-00000004 in Arabic digits is the user's own."""
    store = checkpoints.CheckpointStore(str(tmp_path / 'ckpt'), keep=1)
    first = run.save(store, 4)
    other = os.path.join(store.folder, 'step-' + '٠' * 7 + '٤')
    os.rename(first, other)
    assert store.paths() == [] and store.newest() is None
    run.save(store, 5)
    run.save(store, 6)
    assert sorted(os.listdir(store.folder)) == ['step-00000006', os.path.basename(other)]


def test_a_damaged_later_checkpoint_does_not_push_out_whole_ones(tmp_path):
    """One checkpoint is kept. That of step 20 is damaged; the run continues from step 10 and saves
    14, which must stay.
    """
    store = checkpoints.CheckpointStore(str(tmp_path), keep=1)
    with Session() as session:
        session.save(store, 10)
        kept = os.path.join(str(tmp_path), 'step-00000010')
        shutil.copytree(kept, kept[:-2] + '20')  # its manifest names another step
        assert store.newest().step == 10
        session.save(store, 14)
        assert [os.path.basename(path) for path in store.paths()] == [
            'step-00000014',
            'step-00000020',
        ]
        assert store.newest().step == 14
        session.save(store, 20)
        assert [os.path.basename(path) for path in store.paths()] == [
            'step-00000020'
        ] and store.newest().step == 20


def test_a_kill_between_two_renames_loses_nothing(tmp_path, monkeypatch):
    """The same step is saved again: the old checkpoint is set aside, and the kill comes before the
    new one is in its place.
    """
    store = checkpoints.CheckpointStore(str(tmp_path), keep=1)

    def rename(source, target, real=os.rename):
        if source.endswith('.tmp'):
            raise KeyboardInterrupt
        real(source, target)

    with Session() as session:
        session.save(store, 5)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, 'rename', rename)
            session.save(store, 5)
        assert (
            sorted(os.listdir(str(tmp_path))) == ['step-00000005.old', 'step-00000005.tmp']
            and store.newest().step == 5
        )
        session.save(store, 6)
        assert sorted(os.listdir(str(tmp_path))) == ['step-00000006']
