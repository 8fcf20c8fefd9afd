"""The git term's products in float32 and their bound; the elementwise sums that XLA compiles."""

import numpy as np
import pytest

from gitloss import gram, losses
from gitloss.backend import tf
from helpers import all_nodes, relative_error, run_graph
from loss_reference import case, evaluate, numpy_git

GRAM, ELEMENTWISE = ('pairwise', 'gram'), ('elementwise', None)
VALUE, GRADIENT = 2e-6, 1.5e-6  # the promised errors
ONLY_TF2 = pytest.mark.skipif(tf.__version__.startswith('1.'), reason='compiled by TensorFlow 2')


def errors(batch, variant, reference=numpy_git):
    """(of the value, of the gradient), relative, the gradient's to its largest entry."""
    results = evaluate(*batch, variants=[variant])[variant][2:]
    return [relative_error(*two) for two in zip(results, reference(*batch, variant[0]))]


def fast_git(x, labels, centers, form):
    """`numpy_git` of labels that all differ, one sample at a time."""
    x, own = x.astype(np.float64), centers[labels].astype(np.float64)
    value, gradient = 0.0, np.zeros_like(x)
    for i, row in enumerate(x):
        difference = row - own
        difference[i] = 0
        square = difference**2
        term = 1 / (1 + (square if form == 'elementwise' else square.sum(1, keepdims=True)))
        value += term.sum() - (form == 'pairwise')
        gradient[i] = -2 * (difference * term**2).sum(0)
    count = len(x) ** 2 * x.shape[1] if form == 'elementwise' else len(x) * (len(x) - 1)
    return value / count, gradient / count


def near_others(near=0.1, dim=32, spread=100.0, groups=4):
    """16 classes in groups: centers of a group are about `near` apart, groups about `spread`."""
    random = np.random.RandomState(5)
    groups = spread * random.randn(groups, dim) / np.sqrt(2 * dim)
    centers = groups[np.arange(16) % len(groups)] + near * random.randn(16, dim) / np.sqrt(2 * dim)
    labels = random.randint(0, 16, 48).astype(np.int32)
    x = centers[labels] + 0.5 * near * random.randn(48, dim) / np.sqrt(dim)
    return x.astype(np.float32), labels, centers.astype(np.float32)


FEW = 'classes that differ in few coordinates'
CLOSE = {
    'one pair': lambda: one_close_pair(),
    'all pairs': lambda: near_others(groups=1, spread=0.0, near=1e-6),
    'groups': near_others,
    'groups of one place': lambda: near_others(near=1e-6),
    'groups 1e4 apart': lambda: near_others(near=1.0, spread=1e4),
    FEW: lambda: few_coordinates(),
    'groups 3e4 apart, 512 dimensions': lambda: near_others(near=1.0, spread=3e4, dim=512),
}


def one_close_pair():
    """Classes 1e3 apart, but the first sample is at distance 0.7 from the center of another."""
    x, labels, centers = near_others(near=1.0, spread=1e3, groups=16)
    x[0] = centers[(labels[0] + 1) % 16] + np.float32(0.7 / np.sqrt(32))
    return x, labels, centers


def few_coordinates():
    """Three classes, two of them near one place far from the third. They differ in 4 of 128
    coordinates, to which the errors of their products go, while the gradient is over all.
    """
    random = np.random.RandomState(4)
    base = 160.0 * random.randn(2, 128) / np.sqrt(128)
    centers = base[[0, 1, 0]]
    centers[:, :4] += 2.0 * random.randn(3, 4)
    labels = random.randint(0, 3, 64).astype(np.int32)
    x = centers[labels] + 0.36 * random.randn(64, 128) / np.sqrt(128)
    return x.astype(np.float32), labels, centers.astype(np.float32)


@pytest.mark.parametrize('name', sorted(CLOSE))
def test_samples_near_centers_of_other_classes_keep_the_promised_errors(name):
    value, gradient = errors(CLOSE[name](), GRAM)
    assert value <= VALUE and gradient <= GRADIENT


@ONLY_TF2
@pytest.mark.parametrize('name', ['one pair', 'groups', 'groups 1e4 apart', FEW])
def test_float32_without_the_bound_would_not(monkeypatch, name):
    """So the case needs float64, and the bound sees it."""
    monkeypatch.setattr(gram, 'VALUE_RISK', float('inf'))
    monkeypatch.setattr(gram, 'GRADIENT_RISK', float('inf'))
    assert max(errors(CLOSE[name](), GRAM)) > 1e-5


@pytest.mark.parametrize('limit', [0.0, float('inf')])
@pytest.mark.parametrize('dim', [17, 512])
def test_both_precisions_keep_the_promised_errors_of_random_batches(monkeypatch, limit, dim):
    """On TensorFlow 2 a limit of 0 takes float64, one of infinity float32."""
    monkeypatch.setattr(gram, 'VALUE_RISK', limit)
    monkeypatch.setattr(gram, 'GRADIENT_RISK', limit)
    value, gradient = errors(case(batch=48, dim=dim, classes=20), GRAM)
    assert value <= VALUE and gradient <= GRADIENT


@ONLY_TF2
@pytest.mark.parametrize('variant', [GRAM, ELEMENTWISE])
def test_long_sums_of_equal_terms(variant):
    """1,024 samples near one place, centers that are all zero, as at the start of a training:
    where all terms are equal, sums one after the other round in one direction.
    """
    random = np.random.RandomState(6)
    x = (0.3 * random.randn(9) + 1e-3 * random.randn(1024, 9)).astype(np.float32)
    labels = np.arange(1024, dtype=np.int32)
    value, gradient = errors((x, labels, np.zeros_like(x)), variant, fast_git)
    assert value <= VALUE and gradient <= GRADIENT


@pytest.mark.parametrize('batch', [67, 128, 130])
def test_elementwise_sums_of_every_step(batch):
    """Of an odd batch one center at a time, of 130 two, of 128 four, in chunks of 64."""
    value, gradient = errors(case(batch=batch, dim=9, classes=30), ELEMENTWISE)
    assert value <= VALUE and gradient <= GRADIENT


def test_a_second_run_equals_the_first_to_the_bit():
    batch = case(batch=128, dim=32, classes=40)
    first, second = (evaluate(*batch, variants=[GRAM, ELEMENTWISE]) for _ in range(2))
    for variant, values in first.items():
        for one, two in zip(values, second[variant]):
            np.testing.assert_array_equal(one, two)


@ONLY_TF2
@pytest.mark.parametrize('form', losses.FORMS)
@pytest.mark.parametrize('batch, dim, compiled', [(24, 9, True), (24, 8, False), (None, 9, False)])
def test_what_is_compiled(form, batch, dim, compiled):
    with tf.Graph().as_default() as graph:
        rows = [tf.placeholder(tf.float32, [batch, dim]) for _ in range(2)]
        losses.git_term(rows[0], tf.placeholder(tf.int32, [batch]), rows[1], form)
        assert compiled == any(node.attr['_XlaMustCompile'].b for node in all_nodes(graph))


@ONLY_TF2
@pytest.mark.parametrize('form', losses.FORMS)
def test_inside_a_compiled_function(form):
    """As in Keras's `fit` with jit_compile=True."""
    x, labels, centers = case(dim=17)

    def value_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = losses.git_loss(x, labels, centers, form)
        return value, tape.gradient(value, x)

    for batch in (None, 24):
        function = tf.function(
            value_and_gradient,
            input_signature=[tf.TensorSpec([batch, 17], tf.float32)],
            autograph=False,
            jit_compile=True,
        )
        for result, expected in zip(function(tf.constant(x)), numpy_git(x, labels, centers, form)):
            assert relative_error(result.numpy(), expected) <= VALUE


@ONLY_TF2
def test_graphs_are_let_go():
    """A graph with a compiled function is freed when nobody uses it."""
    import gc
    import weakref

    x, labels, centers = case(dim=9)
    graphs = []

    def build(*inputs):
        graphs.append(weakref.ref(tf.get_default_graph()))
        return losses.git_loss(*inputs)

    run_graph(build, x, labels, centers)
    gc.collect()
    assert graphs[0]() is None
