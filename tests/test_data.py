"""What a data set says of itself, and the memory that it takes."""

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from gitloss import data
from helpers import pixels
from sources import mapped, numbered

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Encoded(data.Source):
    """Sample k is stored as the text of k."""

    image_shape = (1, 1, 1)

    def __init__(self, count):
        self.labels = np.arange(count, dtype=np.int32)

    def read(self, indices):
        return np.array([b'%d' % index for index in indices], object)

    def decode(self, raw):
        return f'decoded {raw}'

    def images(self, indices):
        return indices.astype(np.uint8)[:, None, None, None]


def test_a_view_has_samples_of_any_source_in_an_order_of_its_own():
    source = Encoded(9)
    view = data.View(source, np.array([7, 0, 3]))
    assert len(view) == 3 and view.labels.tolist() == [7, 0, 3]
    assert view.read(np.array([1, 2])).tolist() == [b'0', b'3']
    assert pixels(view).ravel().tolist() == [7, 0, 3] and view.decode('x') == 'decoded x'
    assert (view.image_shape, view.parallel) == ((1, 1, 1), True)
    other = data.View(source, np.array([7, 0]), labels=np.array([1, 1]))
    assert other.labels.tolist() == [1, 1] and pixels(other).ravel().tolist() == [7, 0]


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
    dataset = data.Dataset(data.DataSpec('numbers', (2, 3, 1), 9), valid=numbered(9))
    dataset.require('valid')
    with pytest.raises(ValueError, match='splits train, valid. Received: one with valid$'):
        dataset.require('train', 'valid')


def test_the_fingerprint_of_a_run_is_of_what_decides_its_course():
    """The fingerprints cover images and labels of training and validation, not of the test split,
    which has no influence on the training.
    """
    spec, nine, ten = data.DataSpec('numbers', (2, 3, 1), 10), numbered(9), numbered(10)
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


def test_a_whole_split_is_gone_through_in_blocks(tmp_path):
    """Of 128 MiB of images, a block of 16 MiB, its bytes for the fingerprint, and the int64 sums of
    one image, 32 KiB, are in memory at once: less than three blocks.
    """
    source = data.ArraySource(
        mapped(tmp_path / 'images', 1 << 15, 64, 64, 1), np.zeros(1 << 15, np.int32)
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
from sources import Sweep, mapped
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
    images = mapped(folder + '/images', count, 64, 64, 1)
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
