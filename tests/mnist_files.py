"""Made-up data sets in the files of MNIST."""

import gzip

import numpy as np

from helpers import pixels
from toys import idx_bytes

NAMES = {
    'x_train': 'train-images-idx3-ubyte',
    'y_train': 'train-labels-idx1-ubyte',
    'x_test': 't10k-images-idx3-ubyte',
    'y_test': 't10k-labels-idx1-ubyte',
}


def arrays_of(train=40, test=10, height=5, width=4, classes=3):
    random = np.random.RandomState(0)
    arrays = {}
    for part, count in (('train', train), ('test', test)):
        arrays['x_' + part] = random.randint(0, 256, (count, height, width)).astype(np.uint8)
        arrays['y_' + part] = (np.arange(count) % classes).astype(np.uint8)
    return arrays


def write_idx(folder, arrays, zipped=False, dotted=False):
    """Writes the four IDX files; `dotted` is the naming `train-images.idx3-ubyte`."""
    for key, array in arrays.items():
        name = NAMES[key].replace('-idx', '.idx') if dotted else NAMES[key]
        content = idx_bytes(array)
        (folder / (name + ('.gz' if zipped else ''))).write_bytes(
            gzip.compress(content) if zipped else content
        )
    return str(folder)


def assert_loaded(dataset, arrays):
    """Checks that `arrays` were loaded: the first tenth held out, nothing lost, nothing changed."""
    held = len(arrays['y_train']) // 10
    np.testing.assert_array_equal(
        np.concatenate([pixels(dataset.valid), pixels(dataset.train)])[..., 0], arrays['x_train']
    )
    np.testing.assert_array_equal(
        np.concatenate([dataset.valid.labels, dataset.train.labels]), arrays['y_train']
    )
    np.testing.assert_array_equal(pixels(dataset.test)[..., 0], arrays['x_test'])
    np.testing.assert_array_equal(dataset.test.labels, arrays['y_test'])
    assert len(dataset.valid.labels) == held
    assert all(
        pixels(split).dtype == np.uint8 and split.labels.dtype == np.int32 for split in dataset[1:4]
    )
