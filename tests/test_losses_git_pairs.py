"""How the git term computes its pairs: methods, blocks, memory, its floor."""

import numpy as np
import pytest

from gitloss import losses, pairs
from gitloss.backend import tf
from helpers import all_nodes, graph_session, run_graph, static_shapes
from loss_reference import VARIANTS, case, check, evaluate, loss_terms


@pytest.mark.parametrize('scale, tolerance', [(3e3, 1e-5), (3e4, 1e-3)])
def test_limit_of_the_gram_method(scale, tolerance):
    """Samples next to a center of *another* class, for the cancellation in `gitloss.gram`. The
    direct method has no limit. Three centers in 512 dimensions with normal coordinates of
    deviation s are s sqrt(2 * 512) = 32 s apart: 1e5 and 1e6. A fourth class has its center at
    distance 1 from the third. Half an ulp of a squared norm of (1e6)^2 is 1e12 * 1.1e-16 = 1e-4.
    """
    _, labels, centers = case(batch=16, dim=512, classes=3, scale=scale)
    centers = np.concatenate([centers, centers[2:]])
    centers[3, 0] += 1.0
    labels = np.concatenate([labels, [2, 3, 2, 3]]).astype(np.int32)
    x = (centers[labels] + 1e-2 * np.random.RandomState(1).randn(20, 512) / np.sqrt(512)).astype(
        np.float32
    )
    results = evaluate(x, labels, centers)
    check(x, labels, centers, {('pairwise', 'gram'): results.pop(('pairwise', 'gram'))}, tolerance)
    check(x, labels, centers, results)


def test_methods_and_their_default():
    """None selects the direct method up to 8 dimensions (no matrix product in the graph), and gram
    above.
    """
    for dim in (8, 9):
        with tf.Graph().as_default() as graph:
            x, labels, centers = tf.zeros([4, dim]), tf.zeros([4], tf.int32), tf.zeros([3, dim])
            losses.git_loss(x, labels, centers, 'pairwise')
            assert any(node.op == 'MatMul' for node in all_nodes(graph)) == (dim > 8)


@pytest.mark.parametrize('form, expected', [('pairwise', 4 / 20), ('elementwise', 9 / 25)])
def test_git_floor_by_hand(form, expected):
    """Labels 0 0 1 1 2. Ordered pairs of one class, i = j included: 4 + 4 + 1 = 9 of 25; without: 4
    of 20. A git term with samples on their centers and the centers far apart equals it.
    """
    labels, centers = np.int32([0, 0, 1, 1, 2]), np.float32([[0, 1e6], [3e6, 5e6], [-4e6, 9e6]])
    floor, git = run_graph(
        lambda x, labels, centers: (
            losses.git_floor(labels, form),
            losses.git_loss(x, labels, centers, form),
        ),
        centers[labels],
        labels,
        centers,
    )
    assert floor == pytest.approx(expected, rel=1e-6)
    assert git == pytest.approx(floor, rel=1e-5)


@pytest.mark.parametrize('batch, block_floats', [(24, 24 * 24 * 2), (24, 1), (23, 1)])
def test_row_blocks_equal_the_double_loop(monkeypatch, batch, block_floats):
    """Blocks are the largest divisor r of the batch with r * batch * dim <= block floats, or single
    rows; dim 17.

    24, 1152: r * 408 <= 1152, r = 2, twelve blocks. 24, 1: r = 1. A prime batch: r = 1 as well.
    """
    monkeypatch.setattr(pairs, 'BLOCK_FLOATS', block_floats)
    x, labels, centers = case(batch=batch, dim=17)
    with tf.Graph().as_default() as graph:
        losses.git_loss(
            tf.zeros(x.shape), tf.zeros(labels.shape, tf.int32), tf.zeros(centers.shape)
        )
        assert any(node.op in ('LoopCond', 'While', 'StatelessWhile') for node in all_nodes(graph))
    check(x, labels, centers, evaluate(x, labels, centers))


@pytest.mark.parametrize('form', ['elementwise', 'pairwise'])
def test_unrolled_blocks_equal_the_double_loop(monkeypatch, form):
    """16 * 36 floats, dim 17, batch 24: r * 24 * 17 <= 576, r = 1, so 24 blocks, and no loop in the
    graph.
    """
    monkeypatch.setattr(pairs, 'BLOCK_FLOATS', 36)
    x, labels, centers = case(batch=24, dim=17)
    with tf.Graph().as_default() as graph:
        losses.git_loss(
            tf.zeros(x.shape),
            tf.zeros(labels.shape, tf.int32),
            tf.zeros(centers.shape),
            form,
            method='unrolled',
        )
        assert not any(
            node.op in ('LoopCond', 'While', 'StatelessWhile') for node in all_nodes(graph)
        )
    results = run_graph(
        lambda *inputs: loss_terms(*(inputs + (form, 'unrolled'))), x, labels, centers
    )
    check(x, labels, centers, {(form, 'unrolled'): results})


def test_batch_unknown_at_build_time():
    x, labels, centers = case(batch=7, dim=3)
    with graph_session() as session:
        inputs = (
            tf.placeholder(tf.float32, [None, 3]),
            tf.placeholder(tf.int32, [None]),
            tf.placeholder(tf.float32, [None, 3]),
        )
        fetches = {variant: loss_terms(*(inputs + variant)) for variant in VARIANTS}
        for count in (7, 2, 1):
            results = session.run(
                fetches, {inputs[0]: x[:count], inputs[1]: labels[:count], inputs[2]: centers}
            )
            check(x[:count], labels[:count], centers, results)


def _largest(graph):
    return max(
        shape.num_elements() or 0
        for node in all_nodes(graph)
        for shape in static_shapes(node)
        if shape.is_fully_defined()
    )


@pytest.mark.parametrize('form, method', VARIANTS)
def test_no_tensor_of_batch_times_batch_times_dim(monkeypatch, form, method):
    """Forward and backward. batch 96, dim 160: batch^2 = 9,216; batch x dim = 15,360; batch x batch
    x dim = 1,474,560.
    """
    monkeypatch.setattr(pairs, 'BLOCK_FLOATS', 1)
    with tf.Graph().as_default() as graph:
        x, labels, centers = (
            tf.placeholder(tf.float32, [96, 160]),
            tf.placeholder(tf.int32, [96]),
            tf.zeros([50, 160]),
        )
        loss_terms(x, labels, centers, form, method)
        assert 9216 <= _largest(graph) <= 2 * 9216
        # 1 and 2: DT_FLOAT and DT_DOUBLE.
        floats = [node for node in all_nodes(graph) if node.attr['T'].type in (1, 2)]
        assert all(shape.is_fully_defined() for node in floats for shape in static_shapes(node))


@pytest.mark.skipif(
    tf.__version__.startswith('1.'),
    reason='TensorFlow 1.15 has no eager mode beside graphs in one process',
)
def test_eager_mode():
    assert tf.executing_eagerly()
    x, labels, centers = case(dim=9)
    results = {}
    for variant in VARIANTS:
        position = tf.constant(x)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(position)
            center = losses.center_loss(position, labels, centers, variant[0])
            git = losses.git_loss(position, labels, centers, variant[0], method=variant[1])
        four = (center, tape.gradient(center, position), git, tape.gradient(git, position))
        results[variant] = [tensor.numpy() for tensor in four]
    check(x, labels, centers, results)
