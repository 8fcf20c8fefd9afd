"""The files of TensorBoard's Projector: embeddings, labels and thumbnails that fit together."""

import glob
import io

import numpy as np
import pytest
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from callbacks import projector
from events import COUNT, FakeHandle
from gitloss import metrics
from gitloss.data import ArraySource


@pytest.mark.parametrize('count, dim', [(COUNT, 2), (2500, 5)])
def test_projector_files_fit_together(tmp_path, count, dim):
    """2500 samples: 1000 of them, evenly spaced, in a sprite of 32 x 32 thumbnails of 6 x 8
    pixels.
    """
    random = np.random.RandomState(0)
    embeddings, labels = random.randn(count, dim).astype(np.float32), random.randint(0, 10, count)
    images = random.randint(0, 256, (count, 8, 6, 1)).astype(np.uint8)
    writer = projector.Projector(FakeHandle(tmp_path).write, ArraySource(images, labels))
    writer.write('first', embeddings + 1, labels, labels, np.arange(count))
    writer.write('second', embeddings, labels, np.zeros_like(labels), np.arange(count))
    text = (tmp_path / 'projector_config.pbtxt').read_text()
    from google.protobuf import text_format

    entry = text_format.Parse(text, ProjectorConfig()).embeddings[0]
    assert entry.tensor_name == 'second'
    chosen = metrics.evenly_spaced(count, 1000)
    side = int(np.ceil(np.sqrt(len(chosen))))
    assert len(chosen) == min(count, 1000) and (chosen[0], chosen[-1]) == (0, count - 1)
    table = np.loadtxt(str(tmp_path / entry.tensor_path), delimiter='\t')
    np.testing.assert_allclose(table[:, :dim], embeddings[chosen], rtol=1e-5)
    # The Projector needs three dimensions.
    assert table.shape == (len(chosen), max(dim, 3)) and not table[:, dim:].any()
    lines = (tmp_path / entry.metadata_path).read_text().splitlines()
    assert (
        lines[0].split('\t') == ['label', 'predicted', 'right', 'number']
        and len(lines) == len(chosen) + 1
    )
    assert lines[-1].split('\t') == [
        str(labels[-1]),
        '0',
        str(int(labels[-1] == 0)),
        str(count - 1),
    ]
    sheet = np.asarray(Image.open(str(tmp_path / entry.sprite.image_path)))
    assert list(entry.sprite.single_image_dim) == [6, 8] and sheet.shape == (8 * side, 6 * side)
    row, column = divmod(len(chosen) - 1, side)
    np.testing.assert_array_equal(
        sheet[row * 8 : row * 8 + 8, column * 6 : column * 6 + 6], images[-1, ..., 0]
    )
    assert not glob.glob(str(tmp_path / 'projector' / '*.tmp'))


def test_large_thumbnails_are_made_smaller():
    """160 x 96 pixels, at most 48: 29 x 48 by the factor 0.3. Three channels remain colors."""
    content, size = projector.sprite(np.full((5, 160, 96, 3), (255, 0, 0), np.uint8))
    sheet = Image.open(io.BytesIO(content))
    assert (
        size == (29, 48)
        and sheet.size == (3 * 29, 3 * 48)
        and sheet.getpixel((10, 10)) == (255, 0, 0)
    )


def test_the_projector_names_samples_and_thumbnails_by_their_place_in_the_split(tmp_path):
    """Two samples of five, numbers 1 and 4: their own thumbnails and numbers."""
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    source = ArraySource(images, np.zeros(5, np.int32))
    projector.Projector(FakeHandle(tmp_path).write, source).write(
        'two', np.zeros((2, 2)), [7, 8], [7, 7], [1, 4]
    )
    assert (tmp_path / 'projector' / 'metadata.tsv').read_text().split('\n')[1:3] == [
        '7\t7\t1\t1',
        '8\t7\t0\t4',
    ]
    assert np.unique(
        np.asarray(Image.open(str(tmp_path / 'projector' / 'sprite.png')))[:4]
    ).tolist() == [1, 4]
