"""Sources whose images are stored encoded and decoded in the pipeline."""

import functools
import io

import numpy as np
import pytest
from PIL import Image

import toys
from gitloss import data
from gitloss.backend import tf
from helpers import Losses, graph_session, pixels
from runs import trainer_of
from sources import Sweep


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
        trainer_of(settings, [losses, sweep], dataset).fit()
        seen.append(losses.seen + [value.tolist() for value in sweep.seen])
    assert len(seen[0]) == 12 and seen[0] == seen[1]


def test_what_decode_gives_must_be_bytes():
    """The cast to float32 would accept other types, but the host would see other pixels."""

    class Float(data.ArraySource):
        def decode(self, raw):
            return tf.cast(raw, tf.float32) / 255.0

    source = Float(np.zeros((4, 2, 3, 1), np.uint8), np.zeros(4, np.int32))
    with tf.Graph().as_default():
        with pytest.raises(ValueError, match='^decode: expected uint8 images. Received: float32$'):
            data.BatchStream(source, 2, seed=1).dataset(0)
