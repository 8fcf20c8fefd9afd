"""--sampler=balanced: P identities with K images each, as a function of (seed, step). The shuffled
batches are in test_data.py.
"""

import numpy as np
import pytest

import toys
from gitloss import data
from gitloss.errors import OptionError
from trainers import devices
from trainers.engine.trainer import Trainer

CLASSES, EACH, BATCH = 11, 3, 12
PER_BATCH = BATCH // EACH  # identities: 4 of 11
PER_EPOCH = CLASSES // PER_BATCH  # batches: 2, after which 11 - 8 = 3 identities are left over


def labels_of(seed=0):
    """1 to 9 images of each of 11 identities, in any order."""
    random = np.random.RandomState(seed)
    labels = np.repeat(np.arange(CLASSES), 1 + np.arange(CLASSES) % 9).astype(np.int32)
    return labels[random.permutation(len(labels))]


def balanced(seed=5, labels=None, batch=BATCH, each=EACH, classes=None):
    return data.Balanced(labels_of() if labels is None else labels, batch, seed, each, classes)


def identities(sampler, step):
    """The identities of a batch, in order, each of which fills its own block of K rows."""
    blocks = labels_of()[sampler.indices(step)].reshape(PER_BATCH, EACH)
    assert (blocks == blocks[:, :1]).all()
    return blocks[:, 0].tolist()


def test_a_batch_has_p_distinct_identities_with_k_images_each():
    sampler = balanced()
    for step in range(50):
        assert len(set(identities(sampler, step))) == PER_BATCH
        assert sampler.indices(step).dtype == np.int64


def test_images_of_an_identity_repeat_only_if_it_has_fewer_than_k():
    """Of n < 3 images each occurs 3 // n times or once more; of n >= 3 none occurs twice."""
    labels, sampler, fewest = labels_of(), balanced(), set()
    counts = np.bincount(labels)
    for step in range(50):
        for block in sampler.indices(step).reshape(PER_BATCH, EACH):
            held = counts[labels[block[0]]]
            times = np.unique(block, return_counts=True)[1]
            assert len(times) == min(EACH, held)
            assert times.max() - times.min() <= 1
            fewest.add(min(EACH, held))
    assert fewest == {1, 2, 3}


def test_every_identity_comes_once_per_identity_epoch_apart_from_the_remainder():
    """2 batches of 4 of 11 identities: 8 come once, 3 not at all, others in each epoch."""
    sampler, left_out = balanced(), []
    for epoch in range(20):
        steps = range(epoch * PER_EPOCH, (epoch + 1) * PER_EPOCH)
        seen = [identity for step in steps for identity in identities(sampler, step)]
        assert len(seen) == len(set(seen)) == CLASSES - CLASSES % PER_BATCH
        left_out.append(frozenset(range(CLASSES)) - frozenset(seen))
    assert len(set(left_out)) > 10 and frozenset.union(*left_out) == set(range(CLASSES))


def test_all_images_of_an_identity_come_in_time():
    """Nine images, three at a time: the permutation is another one in each batch."""
    labels, sampler = labels_of(), balanced()
    seen = np.unique(np.concatenate([sampler.indices(step) for step in range(100)]))
    np.testing.assert_array_equal(seen, np.arange(len(labels)))


def test_random_access_equals_reading_on():
    sequence = [balanced().indices(step).tolist() for step in range(20)]
    again = balanced()
    for step in np.random.RandomState(0).permutation(20):
        assert again.indices(step).tolist() == sequence[step]
    assert len({tuple(batch) for batch in sequence}) == 20
    assert balanced(seed=6).indices(0).tolist() != sequence[0]


def test_frozen_numbers():
    """A run sees the same images for ever, with every NumPy. Step 3 is the second batch of
    identity-epoch 1: entries 4 to 7 of the permutation of [seed, epoch]; of each identity the first
    three of the permutation of [seed, step, identity], repeated.
    """
    labels, found = labels_of(), balanced(seed=5).indices(3)
    expected = []
    for identity in np.random.RandomState([5, 1]).permutation(CLASSES)[4:8]:
        held = np.flatnonzero(labels == identity)
        order = np.random.RandomState([5, 3, identity]).permutation(len(held))
        expected += [held[order[place % len(held)]] for place in range(EACH)]
    assert found.tolist() == expected == FROZEN


FROZEN = [34, 26, 10, 20, 36, 2, 7, 5, 24, 15, 33, 15]


@pytest.mark.parametrize('each, per_batch', [(1, 11), (12, 1), (4, 3), (6, 2)])
def test_extreme_sizes(each, per_batch):
    """All identities in one batch; one identity alone."""
    batch = each * per_batch
    found = labels_of()[balanced(batch=batch, each=each).indices(7)].reshape(per_batch, each)
    assert len(np.unique(found[:, 0])) == per_batch and (found == found[:, :1]).all()


@pytest.mark.parametrize(
    'changes, said',
    [
        (
            {'each': 5},
            '--images_per_identity: expected a divisor of the batch size, 12. Received: 5',
        ),
        (
            {'batch': 36},
            '--sampler: expected at least 12 classes with balanced, for batches of 36 with 3 '
            'images of each. Received: 11',
        ),
        (
            {'classes': 13},
            '--sampler: expected training images of each of the 13 classes with balanced. '
            'Received: none of 2 of them, the first one class 11',
        ),
        (
            {'labels': np.array([0, 2, 2, 3], np.int32)},
            '--sampler: expected training images of each of the 4 classes with balanced. '
            'Received: none of 1 of them, the first one class 1',
        ),
    ],
)
def test_what_cannot_be_balanced_is_refused(changes, said):
    with pytest.raises(ValueError) as caught:
        balanced(**changes)
    assert str(caught.value) == said


@pytest.mark.parametrize('size', [1, 2, 3])
def test_workers_share_the_same_global_batch(size):
    labels = labels_of()
    source = data.ArraySource(np.zeros([len(labels), 2, 2, 1], np.uint8), labels)
    sampler = data.sampler('balanced', EACH, CLASSES)
    whole = balanced()
    for step in range(4):
        parts = [
            data.BatchStream(source, BATCH, 5, rank, size, sampler).batch(step)[1]
            for rank in range(size)
        ]
        assert [len(part) for part in parts] == [BATCH // size] * size
        np.testing.assert_array_equal(np.concatenate(parts), labels[whole.indices(step)])


def test_a_batch_that_does_not_divide_is_refused_with_the_flags(tmp_path):
    with pytest.raises(OptionError) as caught:
        toys.options(tmp_path, sampler='balanced', images_per_identity=5)
    assert str(caught.value) == (
        '--images_per_identity: expected a divisor of --batch_size, 16, with --sampler=balanced. '
        'Received: 5'
    )
    toys.options(tmp_path, images_per_identity=5)  # shuffled batches do not read it


def test_a_run_refuses_more_identities_than_there_are(tmp_path):
    """16 / 2 = 8 of the 4 classes of the toy set."""
    settings = toys.options(tmp_path, sampler='balanced', images_per_identity=2)
    dataset = data.load('mnist', settings.data_folder)
    with pytest.raises(ValueError, match='^--sampler: expected at least 8 classes .*Received: 4$'):
        Trainer(settings, dataset, [], devices.choose(settings)).fit()
    assert not (tmp_path / 'run').exists()
