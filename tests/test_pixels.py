"""Batches of any sampler and augmentation through tf.data: the same pixels in any number of workers
and after a resume, in their order though several are read at once; and whole trainings.
"""

import itertools
import os
import threading
import time

import numpy as np
import pytest

import crew
import survival
import toys
from gitloss import data
from gitloss.backend import tf
from gitloss.errors import TrainingError, reason
from helpers import graph_session, relative_error
from runs import StopAt, assert_same_run, fit, history_of
from trainers import checkpoints, devices
from trainers.engine.trainer import Trainer

BATCH, SEED = 12, 4
ALL = 'flip,crop:3,brightness,contrast'
CHANGES = {
    'sampler': 'balanced',
    'images_per_identity': 4,
    'augment': 'contrast:0.4,flip,brightness:0.1,crop:2',
}


class Disk(data.Source):
    """A source of noise whose reads take various times."""

    def __init__(self, count=40):
        random = np.random.RandomState(1)
        self.stored = random.randint(0, 256, (count, 9, 8, 3)).astype(np.uint8)
        self.labels, self.image_shape = np.arange(count, dtype=np.int32) % 5, (9, 8, 3)

    def read(self, indices):
        time.sleep(0.001 * (int(indices[0]) % 4))
        return self.stored[indices]


def read_on(stream, first, count):
    """`count` batches from step `first` on, as the graph of a run reads them."""
    with graph_session() as session:
        step = tf.placeholder(tf.int64, [])
        iterator = tf.data.make_initializable_iterator(stream.dataset(step))
        batch = iterator.get_next()
        session.run(iterator.initializer, {step: first})
        return [session.run(batch) for _ in range(count)]


def stream_of(source, rank=0, size=1, sampler='balanced', augment=ALL, until=0):
    chosen = data.sampler(sampler, images_per_identity=3, num_classes=5)
    return data.BatchStream(source, BATCH, SEED, rank, size, chosen, augment, until)


def assert_same_batches(found, expected):
    assert len(found) == len(expected)
    for (images, labels), (others, theirs) in zip(found, expected):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, theirs)


@pytest.mark.parametrize('sampler', ['shuffled', 'balanced'])
@pytest.mark.parametrize('augment', ['', ALL])
def test_workers_and_a_resumed_run_see_the_same_pixels(sampler, augment):
    """To the last bit: 7 batches of one worker, against those of two and three, put together, and
    against those that a run continued at step 4 reads.
    """
    source = Disk()
    whole = read_on(stream_of(source, 0, 1, sampler, augment), 0, 7)
    for first, size in itertools.product((0, 4), (1, 2, 3)):
        parts = [
            read_on(stream_of(source, rank, size, sampler, augment), first, 7 - first)
            for rank in range(size)
        ]
        joined = [[np.concatenate(pieces) for pieces in zip(*batch)] for batch in zip(*parts)]
        assert_same_batches(joined, whole[first:])
    if augment:
        plain = read_on(stream_of(source, 0, 1, sampler, ''), 0, 7)
        for (images, labels), (others, theirs) in zip(whole, plain):
            np.testing.assert_array_equal(labels, theirs)
            assert all((image != other).any() for image, other in zip(images, others))


def test_augmentation_ends_at_its_step():
    """The first 2 of 4 batches are augmented as ever, the others are not, nor is batch 3 of a run
    that continues there.
    """
    source = Disk()
    augmented, plain = (read_on(stream_of(source, augment=each), 0, 4) for each in (ALL, ''))
    assert_same_batches(read_on(stream_of(source, until=2), 0, 4), augmented[:2] + plain[2:])
    assert_same_batches(read_on(stream_of(source, until=2), 3, 1), plain[3:])


def test_a_source_on_disk_and_an_array_give_the_same_batches():
    source = Disk()
    array = data.ArraySource(source.stored, source.labels)
    for augment in ('', ALL):
        found, expected = (
            read_on(stream_of(each, augment=augment), 0, 5) for each in (source, array)
        )
        assert_same_batches(found, expected)


def test_batches_keep_their_order_though_they_are_read_at_once(monkeypatch):
    """Each read waits for another one, so that a pipeline that reads one batch at a time would end
    in a BrokenBarrierError. Of two the one that reads the earlier batch ends later.
    """
    monkeypatch.setattr(os, 'cpu_count', lambda: 2)
    meeting = threading.Barrier(2, timeout=60)
    source, places = Disk(), {}

    class Met(Disk):
        def read(self, indices):
            step = places[indices.tobytes()] if len(indices) == BATCH else 12
            if step < 12:  # those read ahead at the end would wait in vain
                meeting.wait()
                time.sleep(0 if step % 2 else 0.05)
            return self.stored[indices]

    plain = stream_of(source, augment='')
    places = {plain.indices(step).tobytes(): step for step in range(40)}
    found = read_on(stream_of(Met(), augment=''), 0, 12)
    assert_same_batches(found, [plain.batch(step) for step in range(12)])


def test_an_error_comes_at_the_step_of_its_batch():
    """Though the batch was read ahead, while others were used."""
    stream = stream_of(Disk())
    wrong = stream.indices(5).tolist()

    class Broken(Disk):
        def read(self, indices):
            if indices.tolist() == wrong:
                raise ValueError('a/b.jpg: expected an image. Received: an empty file')
            return self.stored[indices]

    with graph_session() as session:
        batch = tf.data.make_one_shot_iterator(stream_of(Broken()).dataset(0)).get_next()
        for _ in range(5):
            session.run(batch)
        with pytest.raises(tf.errors.OpError) as caught:
            session.run(batch)
    assert reason(caught.value) == (
        'ValueError: a/b.jpg: expected an image. Received: an empty file'
    )


def test_a_file_that_vanishes_ends_the_run_in_one_line(tmp_path):
    class Vanishing(Disk):
        fingerprint = 'of its own'

        def read(self, indices):
            if 17 in indices and len(indices) == BATCH:
                raise FileNotFoundError(2, 'No such file or directory', 'a/17.jpg')
            return self.stored[indices]

    source = Vanishing()
    spec = data.DataSpec('disk', source.image_shape, 5)
    settings = toys.options(tmp_path, batch_size=BATCH, model='lenet_pp')
    trainer = Trainer(settings, data.Dataset(spec, source), [], devices.choose(settings))
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    assert "No such file or directory: 'a/17.jpg'" in str(caught.value)
    assert '\n' not in str(caught.value)


# --- whole runs -----------------------------------------------------------------------------------


def test_a_run_broken_off_and_continued_sees_what_the_whole_one_saw(tmp_path):
    """Weights, slots, centers and measurements to the last bit; and other ones than without the
    sampler and the augmentation.
    """
    whole, broken, plain = (
        toys.options(tmp_path, exp_save_dir=str(tmp_path / name), save_every='1', **changes)
        for name, changes in (('whole', CHANGES), ('broken', CHANGES), ('plain', {}))
    )
    fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, StopAt(7))
    fit(broken)
    assert_same_run(whole, broken, 12)
    fit(plain)
    assert history_of(plain) != history_of(whole)


def settings_of(folder, name):
    return toys.options(
        folder,
        exp_save_dir=str(folder / name),
        steps=8,
        update_centers=8,
        batch_size=BATCH,
        optimizer='momentum',
        learning_rate=0.01,
        save_every='1',
        keep_checkpoints=9,
        check_replicas=3,
        **CHANGES,
    )


def at_step(settings, step):
    path = os.path.join(settings.run_dir, 'ckpt', f'step-{step:08}')
    return survival.tensors(checkpoints.read(path))


def test_two_workers_train_as_one_also_after_a_kill(tmp_path):
    """Real processes. The gradients of the first step, in the momentum slots, are those of one
    worker to 1e-6 of the largest; the run that was killed after step 3 and started again equals the
    undisturbed one to the last bit; all losses are those of one worker up to rounding.
    """
    one, two, killed = (settings_of(tmp_path, name) for name in ('one', 'two', 'killed'))
    crew.trainer_of(one).fit()
    with crew.Crew(toys.flags_of(two), 2, str(tmp_path / 'logs')) as workers:
        assert workers.wait() == [0, 0]
    with crew.Crew(toys.flags_of(killed), 2, str(tmp_path / 'logs')) as workers:
        workers.until(lambda: os.path.isdir(os.path.join(killed.run_dir, 'ckpt', 'step-00000003')))
        for process in workers.processes:
            process.kill()
        workers.wait()
    with crew.Crew(toys.flags_of(killed), 2, str(tmp_path / 'logs')) as workers:
        assert workers.wait() == [0, 0]
    mine, its = at_step(one, 1), at_step(two, 1)
    for name, value in mine.items():
        assert relative_error(its[name], value) <= 1e-6, name
    assert survival.differences(killed.run_dir, two.run_dir) == []
    losses, others = (crew.witness(settings.run_dir, 0)[0] for settings in (one, two))
    assert len(losses) == 8
    np.testing.assert_allclose(others, losses, rtol=1e-3)
