"""What the scatter plots of a run share."""

import json
import math

import numpy as np
import pytest

from gitloss.figures import view as view_module
from gitloss.figures.view import View


def correlation(one, other):
    """The correlations of the two columns of two pictures, each with its counterpart."""
    return [np.corrcoef(one[:, axis], other[:, axis])[0, 1] for axis in range(2)]


def test_later_pictures_are_turned_to_the_first():
    """Points in a plane of five dimensions, wider first along one axis, then along the other, then
    round: the principal axes swap and turn, and so do pictures on them alone. In a View left stays
    left and up stays up, also across a resume.
    """
    random = np.random.RandomState(0)
    flat, basis = random.randn(300, 2), np.linalg.qr(random.randn(5, 5))[0][:, :2]
    view, resumed, pictures = View(), View(), []
    for widths in ((2.0, 1.0), (1.0, 2.0), (1.0, 1.0), (2.0, 1.0)):
        embeddings = (flat * widths).dot(basis.T)
        resumed.load_state(json.loads(json.dumps(view.state())))
        points, means, _ = view.project(embeddings, embeddings[:3])
        np.testing.assert_array_equal(resumed.project(embeddings, embeddings[:3])[0], points)
        np.testing.assert_allclose(means, points[:3])
        np.testing.assert_allclose(
            np.linalg.norm(points, axis=1),
            np.linalg.norm(embeddings - embeddings.mean(axis=0), axis=1),
        )
        pictures.append(points)
    assert all(min(correlation(pictures[0], later)) > 0.95 for later in pictures[1:])
    swapped = (flat * (1.0, 2.0)).dot(basis.T)
    assert max(np.abs(correlation(pictures[0], view_module.plane(swapped)(swapped)))) < 0.5


@pytest.mark.parametrize('dim', [1, 2])
def test_what_fits_on_paper_is_drawn_as_it_is(dim):
    points = np.random.RandomState(0).randn(9, dim)
    view = View()
    for sign in (1, -1):
        np.testing.assert_array_equal(view.project(sign * points, points)[0], sign * points)
    assert view.state() == {'limit': view.limit, 'anchors': []}


def test_the_half_width_grows_in_steps_and_never_shrinks():
    """Of 100 measurements from 1 to 20 and back; log(20) / log(1.25) = 13.4 steps."""
    view, limits = View(), []
    for size in np.concatenate([np.geomspace(1, 20, 50), np.geomspace(20, 1, 50)]):
        limits.append(view.project(np.array([[size, 0.0]]), np.array([[np.nan, np.nan]]))[2])
        assert limits[-1] >= 1.08 * size
    assert (
        limits == sorted(limits)
        and len(set(limits)) == math.ceil(math.log(20, 1.25))
        and limits[-1] <= 1.25 * 1.08 * 20
    )


@pytest.mark.parametrize(
    'limit, anchors',
    [
        (float('nan'), []),
        (float('inf'), []),
        (-1.0, []),
        (2.0**128, []),
        (1.0, [[0.0, float('nan')]]),
        (1.0, [[0.0, -(2.0**128)]]),
        (1.0, [[0.0]]),
        (1.0, [[0.0, 1.0, 2.0]]),
    ],
)
def test_a_state_that_is_none_of_embeddings_is_refused(limit, anchors):
    """float32 ends below 2^128; anchors lie in the plane."""
    with pytest.raises(ValueError):
        View().load_state({'limit': limit, 'anchors': anchors})
