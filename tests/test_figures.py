"""Figures from arrays, without a run: scatters, curves, pairs of samples, confusion matrices."""

import io

import numpy as np
import pytest
from PIL import Image

from gitloss import metrics
from gitloss.figures import confusion, encoding, plots, view


@pytest.mark.parametrize(
    'classes, size', [(3, (640, 600)), (20, (640, 600)), (50, (900, 860)), (300, (900, 860))]
)
def test_confusion_matrix(classes, size):
    labels = np.arange(900) % classes
    predictions = np.where(np.arange(900) == 0, 1, labels)
    predictions[5] = -1  # not a class: it has no column
    figure = confusion.confusion_matrix(labels, predictions, classes)
    assert Image.open(io.BytesIO(encoding.png_bytes(figure))).size == size
    axes = figure.axes[0]
    assert axes.get_title() == '898 of 900 right (99.78%)'
    counts = {text.get_position(): int(text.get_text()) for text in axes.texts}
    # Class 0 has 300 samples, one taken for class 1; class 2 has 300, one without a prediction.
    if classes == 3:
        assert counts == {(0, 0): 299, (1, 0): 1, (1, 1): 300, (2, 2): 299}
    assert len(counts) == (0 if classes > 20 else classes + 1)


def test_a_confusion_matrix_of_thousands_of_classes_is_refused():
    with pytest.raises(ValueError, match='num_classes: expected at most 1000'):
        confusion.confusion_matrix(np.zeros(3, int), np.zeros(3, int), 10000)


def test_an_animation_keeps_the_colours_of_the_classes():
    """A class of one point beside nine classes of 200: where the PNG has the exact color of a
    class, the GIF has it within 8 of 255, in all frames.
    """
    random = np.random.RandomState(0)
    labels = np.append(np.repeat(np.arange(9), 200), 9)
    points = np.stack([np.cos(labels), np.sin(labels)], axis=1) + 0.05 * random.randn(
        len(labels), 2
    )
    figures = [
        plots.scatter(points * size, labels, np.full((10, 2), np.nan), limit=3.0) for size in (1, 2)
    ]
    frames = [encoding.gif_frame(figure) for figure in figures]
    animation = Image.open(io.BytesIO(encoding.gif_bytes(frames)))
    for number, figure in enumerate(figures):
        animation.seek(number)
        drawn = np.asarray(
            Image.open(io.BytesIO(encoding.png_bytes(figure))).convert('RGB')
        ).astype(int)
        kept = np.asarray(animation.convert('RGB')).astype(int)
        assert kept[drawn.min(axis=-1) == 255].min() == 255  # white stays white
        for colour in plots.COLOURS:
            rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
            there = np.abs(drawn - rgb).max(axis=-1) <= 1
            assert there.sum() > 20 and np.abs(kept[there] - rgb).max() <= 8, (number, colour)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
    'values, scale', [([0.0, 0.0], 'linear'), ([0.0, 0.5], 'log'), ([], 'linear')]
)
def test_curves_of_zeros_have_a_linear_axis(values, scale, caplog):
    figure = plots.curves({'loss': (range(len(values)), values)}, 'losses', 'loss')
    encoding.png_bytes(figure)
    assert figure.axes[0].get_yscale() == scale and not caplog.records


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('genuine', [[], [0.0]])
def test_pairs_of_one_sample_or_of_equal_ones(genuine, caplog):
    figure = plots.distances(np.array(genuine), np.array([]))
    encoding.png_bytes(figure)
    assert (figure.axes[0].get_legend() is None) == (not genuine) and not caplog.records


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('count', [1, 2, 3, 9])
def test_a_plane_of_few_or_equal_samples(count):
    """No variance: any two orthogonal axes will do, and all points are at the origin."""
    points = np.ones((count, 5), np.float32)
    np.testing.assert_array_equal(view.plane(points)(points), np.zeros((count, 2)))
    _, axes = view.principal_axes(points.astype(np.float64))
    np.testing.assert_allclose(axes.T.dot(axes), np.eye(2), atol=1e-12)


def test_principal_axes():
    """Points along (3, 4, 0) / 5 with a little spread along the third axis: those two axes, largest
    entry positive.
    """
    along, across = np.linspace(-5, 5, 11)[:, None], np.array([[0.1], [-0.1]] * 5 + [[0.0]])
    points = 7.0 + along * np.array([[0.6, 0.8, 0.0]]) + across * np.array([[0.0, 0.0, 1.0]])
    origin, axes = view.principal_axes(points)
    np.testing.assert_allclose(origin, points.mean(axis=0))
    np.testing.assert_allclose(np.abs(axes[:, 0]), [0.6, 0.8, 0.0], atol=0.02)
    assert axes[1, 0] > 0.79 and axes[2, 1] > 0.99


def test_pair_distances():
    """(0,0) and (3,4) of class 0: genuine 5. (0,1) of class 1: impostors |(0,0)-(0,1)| = 1 and
    |(3,4)-(0,1)| = sqrt(18).
    """
    genuine, impostor = metrics.pair_distances(
        np.array([[0, 0], [3, 4], [0, 1]], np.float32), np.array([0, 0, 1])
    )
    np.testing.assert_allclose(genuine, [5.0])
    np.testing.assert_allclose(sorted(impostor), [1.0, np.sqrt(18)])


@pytest.mark.parametrize(
    'count, most, numbers',
    [(0, 5, []), (1, 5, [0]), (5, 5, [0, 1, 2, 3, 4]), (10, 4, [0, 3, 6, 9]), (7, 1, [0])],
)
def test_an_even_choice(count, most, numbers):
    assert metrics.evenly_spaced(count, most).tolist() == numbers


def test_pairs_of_a_set_that_is_sorted_by_class():
    """4000 samples in four classes, in order of class: 1000 evenly spaced ones have 250 of each
    class, 4 * 250 * 249 / 2 genuine pairs and 6 * 250^2 impostors. Classes 0 and 1 are on the first
    axis, 2 and 3 on the second: both axes are in the plane.
    """
    labels = np.repeat(np.arange(4), 1000)
    genuine, impostor = metrics.pair_distances(labels[:, None] * np.ones((1, 3)), labels)
    assert (len(genuine), len(impostor)) == (4 * 250 * 249 // 2, 6 * 250**2)
    corners = np.array([[9, 0, 0], [-9, 0, 0], [0, 0, 5], [0, 0, -5]], np.float64)
    np.testing.assert_allclose(
        np.abs(view.plane(corners[labels])(corners)), np.abs(corners[:, [0, 2]]), atol=0.1
    )
