"""The stream of batches, a function of (seed, step), and the padded batches of a sweep."""

import itertools
import threading

import numpy as np
import pytest

from gitloss import data
from gitloss.backend import tf
from helpers import graph_session
from sources import numbered


def test_random_access_equals_reading_on():
    steps = list(range(40))
    stream = data.BatchStream(numbered(50), 8, seed=3)
    sequence = [stream.indices(step) for step in steps]
    for step in np.random.RandomState(0).permutation(steps):
        np.testing.assert_array_equal(stream.indices(step), sequence[step])
        np.testing.assert_array_equal(
            data.BatchStream(numbered(50), 8, seed=3).indices(step), sequence[step]
        )


@pytest.mark.parametrize(
    'count, batch', [(50, 8), (48, 8), (7, 3), (5, 5), (5, 12), (1, 4), (9, 1)]
)
def test_every_epoch_has_every_sample_once(count, batch):
    """Also where a batch crosses the border of two epochs, and where it is longer than the data
    set.
    """
    stream = data.BatchStream(numbered(count), batch, seed=1)
    epochs = 4
    steps = -(-epochs * count // batch)
    sequence = np.concatenate([stream.indices(step) for step in range(steps)])
    assert len(sequence) == steps * batch and sequence.dtype == np.int64
    for epoch in range(epochs):
        np.testing.assert_array_equal(
            np.sort(sequence[epoch * count : (epoch + 1) * count]), np.arange(count)
        )


def test_epochs_and_seeds_differ():
    first, second = (data.BatchStream(numbered(100), 100, seed=seed) for seed in (1, 2))
    orders = [stream.indices(step).tolist() for stream in (first, second) for step in (0, 1)]
    assert all(one != two for one, two in itertools.combinations(orders, 2))


def test_the_global_batch_does_not_depend_on_its_size():
    """The stream of samples does not depend on the batch size."""
    four, ten = (data.BatchStream(numbered(30), batch, seed=9) for batch in (4, 10))
    np.testing.assert_array_equal(
        np.concatenate([four.indices(step) for step in range(15)]),
        np.concatenate([ten.indices(step) for step in range(6)]),
    )


def test_frozen_numbers():
    """A run with seed 1 sees the same images for ever, with every NumPy: MT19937 seeded with [seed,
    epoch], Fisher-Yates.
    """
    stream = data.BatchStream(
        data.ArraySource(np.zeros([55000, 1, 1, 1], np.uint8), np.zeros(55000, np.int32)),
        128,
        seed=1,
    )
    assert stream.indices(0)[:8].tolist() == [14395, 29364, 7278, 44308, 18582, 27110, 7539, 54572]
    # Batch 429 begins with the 55000 - 429 * 128 = 88 last samples of epoch 0, then come 40 of
    # epoch 1.
    assert stream.indices(429)[-8:].tolist() == [
        9356,
        26548,
        27713,
        46399,
        27138,
        23465,
        1004,
        8836,
    ]
    assert data.BatchStream(numbered(10), 10, seed=1).indices(0).tolist() == [
        2,
        9,
        8,
        3,
        6,
        7,
        1,
        4,
        0,
        5,
    ]


def test_batches_are_the_samples_of_their_indices():
    stream = data.BatchStream(numbered(20), 6, seed=4)
    images, labels = stream.batch(7)
    np.testing.assert_array_equal(labels, stream.indices(7))
    np.testing.assert_array_equal(
        images, np.tile(labels.astype(np.uint8)[:, None, None, None], (1, 2, 3, 1))
    )
    assert images.dtype == np.uint8 and labels.dtype == np.int32


@pytest.mark.parametrize('first_step', [0, 5])
def test_tf_data_gives_the_same_batches(first_step):
    stream = data.BatchStream(numbered(20), 6, seed=4)
    with graph_session() as session:
        first = tf.placeholder(tf.int64, [])
        iterator = tf.data.make_initializable_iterator(stream.dataset(first))
        images, labels = iterator.get_next()
        assert images.shape.as_list() == [6, 2, 3, 1] and labels.shape.as_list() == [6]
        assert images.dtype == tf.uint8 and labels.dtype == tf.int32
        session.run(iterator.initializer, {first: first_step})
        for step in range(first_step, first_step + 9):
            for value, expected in zip(
                session.run([images, labels]),
                data.BatchStream(numbered(20), 6, seed=4).batch(step),
            ):
                np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    'count, batch, counts, last',
    [
        (10, 4, [4, 4, 2], [8, 9, 0, 1]),
        (8, 4, [4, 4], [4, 5, 6, 7]),
        (3, 8, [3], [0, 1, 2, 0, 1, 2, 0, 1]),
        (1, 3, [1], [0, 0, 0]),
    ],
)
def test_padded_batches(count, batch, counts, last):
    """All have one size, the last one padded from the beginning; the counts say how many samples
    are real.
    """
    batches = list(data.padded_batches(numbered(count), batch))
    assert [real for _, _, real in batches] == counts
    assert all(
        images.shape == (batch, 2, 3, 1) and images.dtype == np.uint8 for images, _, _ in batches
    )
    assert batches[-1][1].tolist() == last
    np.testing.assert_array_equal(
        np.concatenate([labels[:real] for _, labels, real in batches]), np.arange(count)
    )
    for images, labels, _ in batches:
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)


class Slow(data.Source):
    """Image i is filled with i; `seen` is set when image 4 is read."""

    image_shape = (2, 2, 1)

    def __init__(self, count):
        self.labels, self.seen = np.arange(count, dtype=np.int32), threading.Event()

    def read(self, indices):
        if 4 in indices:
            self.seen.set()
        return np.ones((1, 2, 2, 1), np.uint8) * indices.astype(np.uint8)[:, None, None, None]


def test_padded_batches_of_a_slow_source_are_read_ahead_and_in_order():
    """The second batch of 4 is read although nobody has asked for it. The batches equal those of an
    array.
    """
    source = Slow(50)
    batches = data.padded_batches(source, 4)
    found = [next(batches)]
    assert source.seen.wait(10)
    found += batches
    array = data.ArraySource(source.images(np.arange(50)), source.labels)
    for ours, others in itertools.zip_longest(found, data.padded_batches(array, 4)):
        np.testing.assert_array_equal(ours[0], others[0])
        np.testing.assert_array_equal(ours[1], others[1])
        assert ours[2] == others[2]


def test_an_error_of_a_slow_source_comes_at_its_batch():
    class Broken(Slow):
        def read(self, indices):
            if 9 in indices:
                raise OSError('image 9 cannot be read')
            return super().read(indices)

    batches = data.padded_batches(Broken(50), 4)
    assert [labels[0] for _, labels, _ in itertools.islice(batches, 2)] == [0, 4]
    with pytest.raises(OSError, match='^image 9'):
        next(batches)


def test_a_source_that_ends_is_an_error_not_the_end_of_the_batches():
    """TensorFlow takes StopIteration for the end of a data set."""

    class Ending(data.Source):
        labels, image_shape = np.zeros(8, np.int32), (2, 2, 1)

        def read(self, indices):
            raise StopIteration

    with pytest.raises(RuntimeError, match='^the source ended at batch 3$'):
        data.BatchStream(Ending(), 4, seed=1).batch(3)


def test_nothing_waits_by_the_time_of_day():
    """TensorFlow's thread that tunes a pipeline sleeps until a time of day: after the clock was set
    back, closing the session took as long.
    """
    with tf.Graph().as_default():
        options = data.BatchStream(numbered(50), 8, seed=3).dataset(0).options()
    if hasattr(options, 'autotune'):
        assert options.autotune.enabled is False
    else:
        assert options.experimental_optimization.autotune is False
