"""Properties of both terms on generated batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gitloss.backend import tf
from loss_reference import VARIANTS, check, loss_terms

BATCH, DIM, CLASSES = 6, 3, 4


@pytest.fixture(scope='module')
def fixed_graph():
    """evaluate(x, labels, centers) -> {(form, method): values} on one graph of static shapes."""
    # Not around the yield: it would become the default graph of other tests.
    with tf.Graph().as_default() as graph:
        inputs = (
            tf.placeholder(tf.float32, [BATCH, DIM]),
            tf.placeholder(tf.int32, [BATCH]),
            tf.placeholder(tf.float32, [CLASSES, DIM]),
        )
        fetches = {variant: loss_terms(*(inputs + variant)) for variant in VARIANTS}
    session = tf.Session(graph=graph)
    yield lambda *arrays: session.run(fetches, dict(zip(inputs, arrays)))
    session.close()


def _grid(rows, cols):
    """Multiples of 1/16 in [-64, 64]: adding such numbers is exact in float32."""
    return hnp.arrays(np.int64, (rows, cols), elements=st.integers(-1024, 1024)).map(
        lambda a: (a / 16.0).astype(np.float32)
    )


_labels = hnp.arrays(np.int32, BATCH, elements=st.integers(0, CLASSES - 1))


@given(_grid(BATCH, DIM), _labels, _grid(CLASSES, DIM), st.permutations(range(BATCH)))
def test_the_order_of_the_batch_does_not_matter(fixed_graph, x, labels, centers, order):
    """Values do not change; gradients are permuted with their samples."""
    order = np.array(order)
    results, permuted = (
        fixed_graph(x, labels, centers),
        fixed_graph(x[order], labels[order], centers),
    )
    for variant in VARIANTS:
        center, center_gradient, git, git_gradient = results[variant]
        for value, other in zip(
            (center, center_gradient[order], git, git_gradient[order]), permuted[variant]
        ):
            np.testing.assert_allclose(other, value, rtol=1e-5, atol=1e-6 * np.abs(value).max())


@given(_grid(BATCH, DIM), _labels, _grid(CLASSES, DIM), _grid(1, DIM))
def test_moving_embeddings_and_centers_together_does_not_matter(
    fixed_graph, x, labels, centers, shift
):
    results, moved = (
        fixed_graph(x, labels, centers),
        fixed_graph(x + shift, labels, centers + shift),
    )
    for variant in VARIANTS:
        for value, other in zip(results[variant], moved[variant]):
            np.testing.assert_allclose(other, value, rtol=1e-5, atol=1e-6 * np.abs(value).max())


@given(
    hnp.arrays(np.float32, (BATCH, DIM), elements=st.floats(-16384, 16384, width=32)),
    _labels,
    hnp.arrays(np.float32, (CLASSES, DIM), elements=st.floats(-16384, 16384, width=32)),
)
def test_bounds(fixed_graph, x, labels, centers):
    """0 < git <= 1 in the pairwise form; 1/m <= git <= 1 in the elementwise one, whose diagonal is
    1. center >= 0.
    """
    for (form, _), (center, _, git, _) in fixed_graph(x, labels, centers).items():
        assert center >= 0
        assert git <= 1 + 1e-6
        assert git > 0 if form == 'pairwise' else git >= (1 - 1e-6) / BATCH


@given(_grid(BATCH, DIM), _labels, _grid(CLASSES, DIM))
def test_any_batch_equals_the_double_loop(fixed_graph, x, labels, centers):
    check(x, labels, centers, fixed_graph(x, labels, centers))
