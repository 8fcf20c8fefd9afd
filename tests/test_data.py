"""Sources, and the batches and sweeps that read them."""

import functools
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image

import toys
from callbacks.base import Callback
from gitloss import data
from gitloss.backend import tf
from helpers import Losses, graph_session, pixels
from trainers import devices
from trainers.engine.trainer import Trainer

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


# --- what a data set says of itself ---------------------------------------------------------------


def test_facts_of_a_spec_are_plain_and_come_back():
    """All except the mean, which a checkpoint stores as a weight."""
    spec = data.DataSpec('faces', (8, 6, 3), 5, data.Preprocessing(128.0, np.float32(0.5)))
    facts = json.loads(json.dumps(spec.facts()))
    assert facts == {
        'name': 'faces',
        'image_shape': [8, 6, 3],
        'num_classes': 5,
        'preprocessing': {'divisor': 128.0},
    }
    assert data.DataSpec.from_facts(facts) == spec._replace(preprocessing=data.Preprocessing(128.0))


@pytest.mark.parametrize(
    'change',
    [
        {'image_shape': [8, 6]},
        {'image_shape': [8, 6, 0]},
        {'image_shape': 8},
        {'image_shape': [8, 6, True]},
        {'num_classes': 10**400},
        {'num_classes': 2.5},
        {'num_classes': None},
        {'preprocessing': {}},
        {'preprocessing': {'divisor': 0}},
        {'preprocessing': {'divisor': 1e400}},
        {'preprocessing': 255},
    ],
)
def test_facts_that_no_data_set_has_are_refused_in_one_line(change):
    facts = dict(data.DataSpec('faces', (8, 6, 3), 5).facts(), **change)
    with pytest.raises(ValueError, match='^facts of the data set: expected .*Received: ') as caught:
        data.DataSpec.from_facts(facts)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 400


def test_a_missing_split_is_named():
    dataset = data.Dataset(data.DataSpec('numbers', (2, 3, 1), 9), valid=_numbered(9))
    dataset.require('valid')
    with pytest.raises(ValueError, match='splits train, valid. Received: one with valid$'):
        dataset.require('train', 'valid')


def test_the_fingerprint_of_a_run_is_of_what_decides_its_course():
    """The fingerprints cover images and labels of training and validation, not of the test split,
    which has no influence on the training.
    """
    spec, nine, ten = data.DataSpec('numbers', (2, 3, 1), 10), _numbered(9), _numbered(10)
    images = pixels(nine)
    other = data.ArraySource(images, np.zeros(9, np.int32))
    prints = [
        data.Dataset(spec, *splits).facts()['fingerprint']
        for splits in ((nine, ten, ten), (nine, ten, nine), (ten, ten), (nine, nine), (other, ten))
    ]
    assert prints[0] == prints[1] and len(set(prints)) == 4
    assert nine.fingerprint == hashlib.sha256(images.tobytes() + nine.labels.tobytes()).hexdigest()


@pytest.mark.parametrize(
    'images, labels',
    [
        (np.zeros((4, 2, 2, 1)), np.zeros(4, np.int32)),
        (np.zeros((4, 2, 2), np.uint8), np.zeros(4, np.int32)),
        (np.zeros((4, 2, 2, 1), np.uint8), np.zeros(3, np.int32)),
    ],
)
def test_arrays_that_are_no_images_are_refused(images, labels):
    with pytest.raises(ValueError, match='^images and labels: expected uint8 .*Received: '):
        data.ArraySource(images, labels)


# --- the mean image -------------------------------------------------------------------------------


def test_the_mean_image_has_the_bits_of_one_sum():
    """3000 images of 90 x 90: two blocks of 16 MiB // 8100 = 2071 and 929. Integer sums do not
    depend on the blocks, and the one division is rounded once, to float32.
    """
    images = np.random.RandomState(0).randint(0, 256, (3000, 90, 90, 1)).astype(np.uint8)
    source = data.ArraySource(images, np.zeros(3000, np.int32))
    expected = (images.sum(axis=0, dtype=np.int64) / (255.0 * 3000)).astype(np.float32)
    found = data.mean_image(source)
    assert found.tobytes() == expected.tobytes() and found.shape == (90, 90, 1)
    halved = (images.sum(axis=0, dtype=np.int64) / (127.5 * 3000)).astype(np.float32)
    assert data.mean_image(source, 127.5).tobytes() == halved.tobytes()


# --- the stream -----------------------------------------------------------------------------------


def _numbered(count):
    """Sample k has the label k and an image whose pixels are k."""
    labels = np.arange(count, dtype=np.int32)
    images = np.tile(labels.astype(np.uint8)[:, None, None, None], (1, 2, 3, 1))
    return data.ArraySource(images, labels)


def test_random_access_equals_reading_on():
    steps = list(range(40))
    stream = data.BatchStream(_numbered(50), 8, seed=3)
    sequence = [stream.indices(step) for step in steps]
    for step in np.random.RandomState(0).permutation(steps):
        np.testing.assert_array_equal(stream.indices(step), sequence[step])
        np.testing.assert_array_equal(
            data.BatchStream(_numbered(50), 8, seed=3).indices(step), sequence[step]
        )


@pytest.mark.parametrize(
    'count, batch', [(50, 8), (48, 8), (7, 3), (5, 5), (5, 12), (1, 4), (9, 1)]
)
def test_every_epoch_has_every_sample_once(count, batch):
    """Also where a batch crosses the border of two epochs, and where it is longer than the data
    set.
    """
    stream = data.BatchStream(_numbered(count), batch, seed=1)
    epochs = 4
    steps = -(-epochs * count // batch)
    sequence = np.concatenate([stream.indices(step) for step in range(steps)])
    assert len(sequence) == steps * batch and sequence.dtype == np.int64
    for epoch in range(epochs):
        np.testing.assert_array_equal(
            np.sort(sequence[epoch * count : (epoch + 1) * count]), np.arange(count)
        )


def test_epochs_and_seeds_differ():
    first, second = (data.BatchStream(_numbered(100), 100, seed=seed) for seed in (1, 2))
    orders = [stream.indices(step).tolist() for stream in (first, second) for step in (0, 1)]
    assert all(one != two for one, two in itertools.combinations(orders, 2))


def test_the_global_batch_does_not_depend_on_its_size():
    """The stream of samples does not depend on the batch size."""
    four, ten = (data.BatchStream(_numbered(30), batch, seed=9) for batch in (4, 10))
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
    assert data.BatchStream(_numbered(10), 10, seed=1).indices(0).tolist() == [
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
    stream = data.BatchStream(_numbered(20), 6, seed=4)
    images, labels = stream.batch(7)
    np.testing.assert_array_equal(labels, stream.indices(7))
    np.testing.assert_array_equal(
        images, np.tile(labels.astype(np.uint8)[:, None, None, None], (1, 2, 3, 1))
    )
    assert images.dtype == np.uint8 and labels.dtype == np.int32


@pytest.mark.parametrize('first_step', [0, 5])
def test_tf_data_gives_the_same_batches(first_step):
    stream = data.BatchStream(_numbered(20), 6, seed=4)
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
                data.BatchStream(_numbered(20), 6, seed=4).batch(step),
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
    batches = list(data.padded_batches(_numbered(count), batch))
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


# --- encoded images -------------------------------------------------------------------------------


class PngSource(data.Source):
    """A split of images that are stored as PNG files."""

    def __init__(self, images, labels):
        self.image_shape, self.labels = images.shape[1:], labels
        self.stored = np.empty(len(images), object)
        for number, image in enumerate(images):
            file = io.BytesIO()
            Image.fromarray(image[..., 0]).save(file, 'PNG')
            self.stored[number] = file.getvalue()

    def read(self, indices):
        return self.stored[indices]

    def decode(self, raw):
        return tf.map_fn(functools.partial(tf.io.decode_png, channels=1), raw, tf.uint8)

    def images(self, indices):
        files = map(io.BytesIO, self.stored[indices])
        return np.stack([np.asarray(Image.open(file))[..., None] for file in files])


def _patterns(kind, count=40):
    images, labels = toys.patterns(count)
    return kind(images[..., None], labels.astype(np.int32))


def test_encoded_images_are_decoded_in_the_pipeline():
    """The pixels equal those of `images` on the host, which are those that were encoded."""
    source, plain = _patterns(PngSource), _patterns(data.ArraySource)
    np.testing.assert_array_equal(pixels(source), pixels(plain))
    stream = data.BatchStream(source, 16, seed=4)
    with graph_session() as session:
        images, labels = tf.data.make_one_shot_iterator(stream.dataset(0)).get_next()
        assert images.shape.as_list() == [16, 8, 8, 1] and images.dtype == tf.uint8
        for step in range(6):
            found = session.run([images, labels])
            np.testing.assert_array_equal(found[0], source.images(stream.indices(step)))
            np.testing.assert_array_equal(found[1], source.labels[stream.indices(step)])


def test_encoded_images_train_as_their_pixels_do(tmp_path):
    """Losses and sweeps of an encoded and of a plain source are equal to the last bit."""
    seen = []
    for kind in (PngSource, data.ArraySource):
        settings = toys.options(tmp_path, steps=6, exp_save_dir=str(tmp_path / kind.__name__))
        source, losses = _patterns(kind), Losses()
        sweep = Sweep(source, batches=3)
        dataset = data.Dataset(data.DataSpec('patterns', source.image_shape, 4), source)
        Trainer(settings, dataset, [losses, sweep], devices.choose(settings)).fit()
        seen.append(losses.seen + [value.tolist() for value in sweep.seen])
    assert len(seen[0]) == 12 and seen[0] == seen[1]


class Sweep(Callback):
    """Records in `seen` the embeddings of the first `batches` batches of a source at each
    measurement.
    """

    def __init__(self, source, batches):
        self.source, self.batches, self.seen = source, batches, []

    def on_epoch_end(self, epoch, logs=None):
        for embeddings, _, _, _ in itertools.islice(self.handle.sweep(self.source), self.batches):
            self.seen.append(embeddings)


def test_what_decode_gives_must_be_bytes():
    """The cast to float32 would accept other types, but the host would see other pixels."""

    class Float(data.ArraySource):
        def decode(self, raw):
            return tf.cast(raw, tf.float32) / 255.0

    source = Float(np.zeros((4, 2, 3, 1), np.uint8), np.zeros(4, np.int32))
    with tf.Graph().as_default():
        with pytest.raises(ValueError, match='^decode: expected uint8 images. Received: float32$'):
            data.BatchStream(source, 2, seed=1).dataset(0)


# --- memory ---------------------------------------------------------------------------------------


def _mapped(path, count, *shape):
    """A memory map of a sparse file: it has a size and takes no disk space."""
    with open(str(path), 'wb') as file:
        file.truncate(count * int(np.prod(shape)))
    return np.memmap(str(path), np.uint8, 'r', shape=(count,) + shape)


def test_a_whole_split_is_gone_through_in_blocks(tmp_path):
    """Of 128 MiB of images, a block of 16 MiB, its bytes for the fingerprint, and the int64 sums of
    one image, 32 KiB, are in memory at once: less than three blocks.
    """
    source = data.ArraySource(
        _mapped(tmp_path / 'images', 1 << 15, 64, 64, 1), np.zeros(1 << 15, np.int32)
    )
    tracemalloc.start()
    try:
        assert not data.mean_image(source).any()
        assert len(source.fingerprint) == 64
        for _ in data.padded_batches(source, 1 << 10):  # 4 MiB each
            pass
        assert tracemalloc.get_traced_memory()[1] < 3 * (16 << 20)
    finally:
        tracemalloc.stop()


GROWTH = """
import sys, threading, time
sys.path[:0] = sys.argv[1:3]
import numpy as np
import toys
from gitloss import data
from test_data import Sweep, _mapped
from trainers import devices
from trainers.engine.trainer import Trainer

peak, watching = 0, True

def watch():
    global peak
    while watching:
        with open('/proc/self/status') as file:
            peak = max(peak, int(dict(line.split(':', 1) for line in file)['RssAnon'].split()[0]))
        time.sleep(0.002)

class Mapped(data.ArraySource):
    fingerprint = 'of its own'  # reading 2 GiB for it would take seconds

def train(name, count):
    folder = sys.argv[3] + '/' + name
    settings = toys.options(folder, steps=6, update_centers=3)
    images = _mapped(folder + '/images', count, 64, 64, 1)
    source = Mapped(images, np.memmap(folder + '/images', np.int32, 'r', shape=(count,)))
    dataset = data.Dataset(data.DataSpec('zeros', source.image_shape, 4), source)
    Trainer(settings, dataset, [Sweep(source, batches=4)], devices.choose(settings)).fit()

threading.Thread(target=watch).start()
try:
    train('small', 1 << 10)
    small, peak = peak, 0
    train('large', 1 << 19)
    print(peak - small)
finally:
    watching = False
"""


def test_two_gibibytes_of_images_are_trained_on_without_holding_them(tmp_path):
    """A process that has trained on 1,024 images of 4 KiB trains on 524,288 of them, 2 GiB, in a
    memory map. Only two permutations of 8 bytes per image grow with their number: 8 MiB. The limit
    of 64 MiB leaves room for the graph of the second training and is a 32nd of the images.
    """
    arguments = [sys.executable, '-c', GROWTH, ROOT, os.path.join(ROOT, 'tests'), str(tmp_path)]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    growth = int(result.stdout)  # KiB of anonymous memory, without the page cache of the file
    assert growth < 64 << 10


def test_a_source_that_ends_is_an_error_not_the_end_of_the_batches():
    """TensorFlow takes StopIteration for the end of a data set."""

    class Ending(data.Source):
        labels, image_shape = np.zeros(8, np.int32), (2, 2, 1)

        def read(self, indices):
            raise StopIteration

    with pytest.raises(RuntimeError, match='^the source ended at batch 3$'):
        data.BatchStream(Ending(), 4, seed=1).batch(3)
