"""A run that is interrupted and continued, in its folder or in a new one."""

import os
import shutil
import signal
import time

import pytest

import forking
import toys
from callbacks.base import Callback
from gitloss import data
from gitloss.errors import Interrupted
from runs import StopAt, assert_same_run, fit, history_of
from trainers import checkpoints
from trainers.checkpoints import rundir


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Options of a finished run of 12 steps, which is only read."""
    settings = toys.options(tmp_path_factory.mktemp('whole'))
    fit(settings)
    return settings


@pytest.fixture
def copied(whole, tmp_path):
    """Options of a copy of it."""
    settings = toys.options(tmp_path, data_path=whole.data_path)
    shutil.copytree(whole.run_dir, settings.run_dir)
    return settings


@pytest.mark.parametrize('save_every, killed_at', [('', 6), ('', 11), ('3', 8), ('1', 5)])
def test_a_run_broken_off_and_continued_equals_the_undisturbed_one_to_the_last_bit(
    tmp_path, whole, save_every, killed_at
):
    """Weights, Adam slots, centers, counts and every measurement. With a measurement every 4 of 12
    steps and --save_every=3 the checkpoint of step 6 holds the incomplete sums of steps 5 and 6.
    """
    broken = toys.options(tmp_path, exp_save_dir=str(tmp_path / 'broken'), save_every=save_every)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, StopAt(killed_at))
    fit(broken)
    assert_same_run(whole, broken, 12)
    assert [row['step'] for row in history_of(broken)] == [4, 8, 12]


def test_a_signal_during_a_measurement_leaves_it_to_the_continued_run(tmp_path, whole):
    """The third batch of the sweep at step 8 gets the signal: the checkpoint is that of step 8
    before the measurement.
    """

    class SignalInSweep(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                for number, _ in enumerate(self.handle.sweep(self.split)):
                    if number == 2:
                        os.kill(os.getpid(), 15)

    broken = toys.options(tmp_path, exp_save_dir=str(tmp_path / 'broken'))
    callback = SignalInSweep()
    callback.split = data.load('mnist', broken.data_folder).train
    with pytest.raises(Interrupted) as caught:
        fit(broken, callback)
    assert caught.value.signum == 15
    assert [row['step'] for row in history_of(broken)] == [4]
    fit(broken)
    assert_same_run(whole, broken, 12)


@pytest.mark.parametrize('ignored', [False, True])
def test_a_closed_terminal_saves_and_ends_the_run_unless_under_nohup(tmp_path, ignored):
    """SIGHUP comes after step 5. The measurements are at 4, 8 and 12."""

    class HangUp(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                os.kill(os.getpid(), signal.SIGHUP)

    settings = toys.options(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        if ignored:
            assert fit(settings, HangUp()) is not None
        else:
            with pytest.raises(Interrupted, match='^stopped by SIGHUP$'):
                fit(settings, HangUp())
    finally:
        signal.signal(signal.SIGHUP, before)
    store = checkpoints.CheckpointStore(os.path.join(settings.run_dir, 'ckpt'))
    assert store.newest().step == (12 if ignored else 5)


def test_building_a_run_leaves_no_file_in_tmpdir(tmp_path, monkeypatch):
    """Files there outlive a SIGKILL: AutoGraph would write one for each layer that it converts."""
    scratch = tmp_path / 'scratch'
    scratch.mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(scratch))
    found = []

    class Look(Callback):
        def build(self):
            found.append(os.listdir(str(scratch)))

    fit(toys.options(tmp_path, steps=1), Look())
    assert found == [[]]


def test_a_finished_run_can_be_prolonged(tmp_path, whole):
    """8 steps, then 12: equal to 12 steps at once."""
    fit(toys.options(tmp_path, exp_save_dir=str(tmp_path / 'parts'), steps=8))
    parts = toys.options(tmp_path, exp_save_dir=str(tmp_path / 'parts'))
    fit(parts)
    assert_same_run(whole, parts, 12)


def test_continuing_a_finished_run_trains_nothing_and_changes_nothing(tmp_path):
    settings = toys.options(tmp_path)
    first = fit(settings)
    before = history_of(settings)
    assert fit(settings) == first and history_of(settings) == before


@pytest.mark.parametrize(
    'change, said',
    [
        (
            {'learning_rate': 0.01, 'seed': 2},
            r'Received: --learning_rate \(was 0.001, is 0.01\), --seed \(was 1, is 2\)',
        ),
        ({'batch_size': 8}, r'--batch_size \(was 16, is 8\)'),
        ({'steps': 4}, 'step-00000012. Received: 4; --resume=never'),
    ],
)
def test_other_flags_stop_and_are_named(tmp_path, copied, change, said):
    with pytest.raises(ValueError, match=said):
        fit(toys.options(tmp_path, **{'data_path': copied.data_path, **change}))
    assert [row['step'] for row in history_of(copied)] == [4, 8, 12]


def test_other_data_stops(tmp_path, copied):
    toys.write_mnist(tmp_path / 'other', train=160)
    with pytest.raises(ValueError, match='--data_path: expected the data set of the run in'):
        fit(toys.options(tmp_path, data_path=str(tmp_path / 'other')))


def test_flags_that_do_not_matter_may_differ(tmp_path, copied):
    free = {'log_every': 3, 'keep_checkpoints': 1, 'save_every': '2'}
    fit(toys.options(tmp_path, data_path=copied.data_path, **free))


def test_never_moves_the_old_run_aside(tmp_path):
    settings = toys.options(tmp_path, resume='never')
    for _ in range(3):
        fit(settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['data', 'run', 'run.1', 'run.2']
    assert (
        len(history_of(settings)) == 3 and (tmp_path / 'run.1' / 'ckpt' / 'step-00000012').is_dir()
    )


def test_required_wants_a_checkpoint(tmp_path):
    with pytest.raises(
        ValueError,
        match='--resume: expected a checkpoint in .* to continue. Received: none that is whole',
    ):
        fit(toys.options(tmp_path, resume='required'))


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(
    whole, copied, caplog
):
    settings = copied
    with open(
        os.path.join(settings.run_dir, 'ckpt', 'step-00000012', 'model.data-00000-of-00001'), 'r+b'
    ) as file:
        file.truncate(100)
    with caplog.at_level('WARNING', logger='gitloss'):
        fit(settings)
    assert 'checkpoint passed over' in caplog.text and 'step-00000012' in caplog.text
    assert_same_run(whole, settings, 12)


def test_a_run_folder_in_use_is_refused_and_a_stale_lock_is_not(tmp_path):
    """A process that sleeps with the lock blocks us, and its process number is named; when it is
    killed, the file stays and blocks nobody.
    """
    code = (
        'import sys, time; from trainers.checkpoints.rundir import RunDir; held = '
        'RunDir(sys.argv[1]); held.claim(); print("held", flush=True); '
        'time.sleep(60)'
    )
    said = tmp_path / 'said'
    said.write_text('')
    holder = forking.Process(['-c', code, tmp_path / 'run'], said)
    try:
        while holder.poll() is None and said.read_text() != 'held\n':
            time.sleep(0.01)
        with pytest.raises(
            ValueError,
            match='a folder that no running training uses. Received: .*in use by process '
            f'{holder.pid}',
        ):
            rundir.RunDir(str(tmp_path / 'run')).claim()
    finally:
        holder.kill()
        holder.wait()
    directory = rundir.RunDir(str(tmp_path / 'run'))
    directory.claim()
    with open(str(tmp_path / 'run' / 'run.lock')) as file:
        assert file.read() == f'{os.getpid()}\n'
    directory.release()
