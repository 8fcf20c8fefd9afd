"""Runs with the classes in shards: one worker, two and three as threads, and two processes that are
killed.
"""

import functools
import json
import os
import shutil
import signal

import numpy as np
import pytest

import crew
import survival
import toys
from callbacks.base import Callback
from gitloss import data
from gitloss.backend import tf
from helpers import relative_error
from trainers import checkpoints, evaluate, export, options, run
from trainers.workers.group import OneWorker

COMMON = {'embedding_dim': 16, 'evaluate': False, 'shard_classes': True}


def settings_of(folder, name, steps=1, **changes):
    """The toy's four classes in shards."""
    settings = crew.settings_of(folder, name, **dict(COMMON, **changes))
    return options.Options.restored(settings.as_dict(), steps=steps, update_centers=12)


def train(settings, size=1, *first):
    """The logs of all workers; `first`: classes of callbacks."""

    def fit(group, _=None):
        return crew.trainer_of(settings, group, [kind() for kind in first]).fit()

    if size == 1:
        return [fit(OneWorker())]
    ended = crew.together(size, fit)
    for error in ended:
        if isinstance(error, Exception):
            raise error
    return ended


def assert_close(mine, its):
    assert set(mine) == set(its)
    for name, value in mine.items():
        assert relative_error(its[name], value) <= 1e-6, name


OBJECTIVES = [
    {'weight_decay': 1e-3},
    {'head': 'arcface', 'scale': 8.0, 'git_loss_form': 'pairwise', 'distance': 'cosine'},
    {
        'head': 'cosface',
        'scale': 8.0,
        'loss_scale': 'dynamic',
        'center_init': 'means',
        'evaluate': True,
    },
    {'sample_classes': 0.75, 'weight_decay': 1e-3},
    {'one_class': True},
]


@pytest.mark.parametrize('objective', OBJECTIVES, ids=lambda each: '-'.join(map(str, each)))
def test_one_step_of_shards_is_the_step_of_one_worker(tmp_path, monkeypatch, objective):
    """All variables after one step, among them the momentum slots, which are the gradients: of one
    worker with one shard, of one with two shards one after another, of two workers and of three,
    whose shards are uneven. Four classes in strata of 1 or, of a sample of three, 1, 1 and 2.
    one_class: all labels are 0, so only the first worker has a class of the batch.
    """
    found, objective, read = {}, dict(objective), data.BatchStream.batch
    is_one_class = objective.pop('one_class', False)
    if is_one_class:
        one_class = lambda *of: (read(*of)[0], 0 * read(*of)[1])  # noqa: E731
        monkeypatch.setattr(data.BatchStream, 'batch', one_class)
    for size, each in ((1, 1), (1, 2), (2, 1), (3, 1)):
        settings = settings_of(tmp_path, f'{size}-{each}', class_shards=each, **objective)
        train(settings, size)
        found[size, each] = crew.saved(settings, 1)
    assert found[1, 1]['logits/class_weights'].shape == (4, 16)
    assert found[1, 1]['center_loss/centers'].shape == (4, 16)
    updates = found[1, 1]['center_loss/updates']
    assert updates.sum() == crew.BATCH and (np.count_nonzero(updates) == 1) == is_one_class
    for other in found.values():
        assert_close(found[1, 1], other)


@pytest.mark.parametrize('head', ['softmax', 'arcface'])
def test_one_step_of_shards_is_that_of_the_whole_classifier(tmp_path, head):
    """From the same weights, which a callback sets: [dim, classes] in the one, shards of
    [classes, dim] in the other. All variables, the slots transposed where the kernel is.
    """
    kernel = np.random.RandomState(3).randn(16, 4).astype(np.float32)

    class Begin(Callback):
        chief_only = False

        def build(self):
            self.places = []
            for variable in tf.trainable_variables():
                shard = getattr(variable, 'gitloss_shard', None)
                if shard and variable.shape.rank == 2:
                    place = shard.places[self.handle.rank]
                    self.places.append((variable, kernel.T[place.first : place.stop]))
                elif variable.op.name == 'logits/kernel':
                    self.places.append((variable, kernel))

        def on_train_begin(self, logs=None):
            for variable, value in self.places:
                variable.load(value, self.handle.session)

    found = []
    for size, is_sharded in ((1, False), (2, True)):
        settings = settings_of(
            tmp_path, f'of{size}', head=head, scale=8.0, shard_classes=is_sharded
        )
        train(settings, size, Begin)
        found.append(crew.saved(settings, 1))
    whole = {
        name.replace('logits/kernel', 'logits/class_weights'): (
            value.T if name.startswith('logits/kernel') else value
        )
        for name, value in found[0].items()
    }
    assert_close(whole, found[1])


def test_replicas_are_equal_and_shards_are_not_compared(tmp_path):
    """After five steps with --check_replicas: all variables but shards, to the last bit."""
    settings = settings_of(tmp_path, 'two', steps=5)
    logs = train(settings, 2)
    assert logs[0]['train_loss'] == logs[1]['train_loss']
    (losses, mine), (others, its) = (crew.witness(settings.run_dir, rank) for rank in (0, 1))
    assert losses.tolist() == others.tolist() and set(mine) == set(its)
    shards = {name for name in mine if 'part_0' in name or name.startswith('center_loss')}
    assert len(shards) == 6
    for name, value in mine.items():
        assert (value.tobytes() == its[name].tobytes()) is (name not in shards), name


def test_measurements_evaluation_and_export_of_shards(tmp_path, capfd):
    """Two workers with two shards each, against one with the same seed; the commands on the
    checkpoint, which one process reads. The export is compared with the checkpoint by its runtime.
    """
    found = []
    for size, each in ((1, 1), (2, 2)):
        settings = settings_of(tmp_path, f'of{size}', steps=2, class_shards=each, evaluate=True)
        found.append(train(settings, size)[0])
    names = ('inter_cls_dist', 'intra_cls_dist', 'centers_moved', 'valid_loss', 'test_loss')
    assert [found[1][name] for name in names] == pytest.approx(
        [found[0][name] for name in names], rel=1e-4
    )
    where = f'--ckpt_path={settings.run_dir}'
    assert evaluate.main([where, '--device=cpu', f'--data_path={settings.data_folder}']) == 0
    result = json.loads(capfd.readouterr().out)
    assert result['test']['acc'] == found[1]['test_acc']
    assert export.main([where]) == 0


def test_a_checkpoint_of_shards_goes_on_with_any_number_of_workers(tmp_path):
    """Three workers write step 2. One worker with two shards, two workers, and three begin from it
    and write it again: every tensor to the last bit. Their third steps agree.
    """
    begun = settings_of(tmp_path, 'begun', steps=2)
    train(begun, 3)
    before, found = crew.saved(begun, 2), []
    for size, each in ((1, 2), (2, 1), (3, 1)):
        settings = settings_of(tmp_path, f'on-{size}', steps=3, class_shards=each)
        shutil.copytree(begun.run_dir, settings.run_dir)
        again = str(tmp_path / f'again-{size}')

        class Again(Callback):
            def on_train_begin(self, logs=None, path=again):
                self.handle.save_aside(path)

        train(settings, size, Again)
        saved = survival.tensors(checkpoints.read(again))
        assert set(saved) == set(before)
        for name, value in before.items():
            assert saved[name].tobytes() == value.tobytes(), name
        found.append(crew.saved(settings, 3))
    for other in found[1:]:
        assert_close(found[0], other)


def test_an_overflow_in_one_shard_leaves_all_shards(tmp_path, monkeypatch):
    """Of three workers the last one has two of the four classes. A gradient of its class weights
    beyond 1000 is made infinite there, which the scale of 2^15 reaches and 2^13 does not. The
    updates that are skipped are the same on all workers, and no center moves in them: 12 samples
    in each of the 3 steps.
    """
    plain = tf.train.MomentumOptimizer.compute_gradients

    def compute_gradients(self, *arguments, **settings):
        return [
            (tf.where_v2(tf.abs(gradient) > 1000.0, np.inf, gradient), variable)
            if variable.op.name.endswith('class_weights') and variable.shape.as_list()[0] == 2
            else (gradient, variable)
            for gradient, variable in plain(self, *arguments, **settings)
        ]

    monkeypatch.setattr(tf.train.MomentumOptimizer, 'compute_gradients', compute_gradients)
    settings = settings_of(tmp_path, 'overflow', steps=3, loss_scale='dynamic')
    logs = train(settings, 3)
    assert [row['overflow_steps'] for row in logs] == [logs[0]['overflow_steps']] * 3
    assert logs[0]['overflow_steps'] > 0
    found = crew.saved(settings, 3)
    assert found['center_loss/updates'].sum() == 3 * crew.BATCH
    assert all(np.isfinite(value).all() for value in found.values())
    variables = [crew.witness(settings.run_dir, rank)[1] for rank in (0, 1)]
    for name in variables[0]:
        if name.startswith(('conv', 'embeddings')):
            assert variables[0][name].tobytes() == variables[1][name].tobytes(), name


def test_killed_shards_go_on_to_the_last_bit(tmp_path):
    """Two processes; worker 1 is killed after step 3, both start again; against a run without."""
    calm, killed = (settings_of(tmp_path, name, steps=8) for name in ('calm', 'killed'))
    for settings in (calm, killed):
        with crew.Crew(toys.flags_of(settings), 2, settings.run_dir + '.logs') as workers:
            if settings is killed:
                path = os.path.join(killed.run_dir, 'ckpt', 'step-00000003')
                workers.until(functools.partial(os.path.isdir, path))
                workers.processes[1].send_signal(signal.SIGKILL)
                assert workers.wait() == [1, -signal.SIGKILL]
            else:
                assert workers.wait() == [0, 0]
    with crew.Crew(toys.flags_of(killed), 2, killed.run_dir + '.logs') as workers:
        assert workers.wait() == [0, 0], workers.printed(0)
    mine, its = crew.saved(calm, 8), crew.saved(killed, 8)
    assert {name: value.tobytes() for name, value in mine.items()} == {
        name: value.tobytes() for name, value in its.items()
    }


def test_flags_of_shards_that_do_not_fit(tmp_path, capfd):
    settings = toys.options(tmp_path)
    for flags, line in (
        (['--class_shards=2'], '--class_shards and --sample_classes: expected --shard_classes'),
        (['--shard_classes', '--class_shards=5'], '--class_shards: expected at most 4 shards'),
        (['--shard_classes', '--lazy_adam'], '--lazy_adam: expected --sample_classes below 1'),
    ):
        assert run.main(toys.flags_of(settings) + flags) == 2
        assert line in capfd.readouterr().err
