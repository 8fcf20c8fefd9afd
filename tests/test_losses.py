"""The losses and the center rule against slow, simple float64 NumPy.

Tolerances for float32 inputs: a value is off by at most 1e-5 of itself. A gradient is off by at
most 1e-5 of its largest entry: an entry is a sum over the batch in which terms may cancel, so small
entries are only as accurate as the large ones. Where the exact gradient is zero everywhere, see
`_check_gradient`.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gitloss import losses, pairs
from gitloss.backend import tf
from helpers import all_nodes, graph_session, relative_error, run_graph, static_shapes

TOLERANCE = 1e-5
# Computed in one run per case: (name, form, method of the git term).
VARIANTS = (('elementwise', None), ('pairwise', 'direct'), ('pairwise', 'gram'))


# --- the reference: loops over samples, float64 ---------------------------------------------------


def numpy_center(x, labels, centers, form):
    """(value, gradient) of the center term."""
    x, centers = np.asarray(x, np.float64), np.asarray(centers, np.float64)
    batch, dim = x.shape
    value, gradient = 0.0, np.zeros_like(x)
    for i in range(batch):
        difference = x[i] - centers[labels[i]]
        if form == 'elementwise':
            value += np.sum(difference**2) / (batch * dim)
            gradient[i] = 2.0 * difference / (batch * dim)
        else:
            value += 0.5 * np.sum(difference**2) / batch
            gradient[i] = difference / batch
    return value, gradient


def numpy_git(x, labels, centers, form):
    """(value, gradient) of the git term, pair by pair."""
    x, centers = np.asarray(x, np.float64), np.asarray(centers, np.float64)
    batch, dim = x.shape
    value, gradient = 0.0, np.zeros_like(x)
    for i in range(batch):
        for j in range(batch):
            difference = x[i] - centers[labels[j]]
            if form == 'elementwise':
                if i == j:
                    difference = np.zeros(dim)
                terms = 1.0 / (1.0 + difference**2)
                value += np.sum(terms)
                gradient[i] -= 2.0 * difference * terms**2
            elif i != j:
                term = 1.0 / (1.0 + np.sum(difference**2))
                value += term
                gradient[i] -= 2.0 * difference * term**2
    count = batch * batch * dim if form == 'elementwise' else max(batch * (batch - 1), 1)
    return value / count, gradient / count


def numpy_update(centers, x, labels, alpha):
    """Wen et al., ECCV 2016, eq. 4, class by class: c_j - alpha sum_i [y_i = j] (c_j - x_i) / (1 +
    sum_i [y_i = j]).
    """
    moved = np.array(centers, np.float64)
    for k in range(len(centers)):
        total, count = np.zeros(x.shape[1]), 0
        for i in range(len(x)):
            if labels[i] == k:
                total += np.asarray(centers[k], np.float64) - x[i]
                count += 1
        moved[k] -= alpha * total / (1 + count)
    return moved


def _terms(x, labels, centers, form, method):
    """[value, gradient] of the center term and of the git term, and the gradient of their sum with
    respect to the centers.
    """
    center = losses.center_loss(x, labels, centers, form)
    git = losses.git_loss(x, labels, centers, form, method=method)
    into_centers = tf.gradients(center + git, centers)[0]
    assert into_centers is None, 'a gradient flows into the centers'
    return [center, tf.gradients(center, x)[0], git, tf.gradients(git, x)[0]]


def _evaluate(x, labels, centers, variants=VARIANTS):
    """{(form, method): the four values of `_terms`}."""
    values = run_graph(
        lambda *inputs: [_terms(*(inputs + variant)) for variant in variants], x, labels, centers
    )
    return dict(zip(variants, values))


def _check_gradient(gradient, reference, x, where, tolerance=TOLERANCE):
    """Relative to the largest entry; where all entries cancel, to 1e-13 of the largest coordinate
    (float64's own rounding).
    """
    deviation = np.abs(np.asarray(gradient, np.float64) - reference).max()
    allowed = tolerance * np.abs(reference).max() + 1e-13 * np.abs(np.asarray(x, np.float64)).max()
    assert np.isfinite(gradient).all() and deviation <= allowed, (
        f'{where}: gradient off by {deviation:g} of {allowed:g}'
    )


def _check(x, labels, centers, results, tolerance=TOLERANCE, gradient_tolerance=None):
    for (form, method), (center, center_gradient, git, git_gradient) in results.items():
        for name, value, gradient, reference in (
            ('center', center, center_gradient, numpy_center(x, labels, centers, form)),
            ('git', git, git_gradient, numpy_git(x, labels, centers, form)),
        ):
            where = f'{name} {form} {method}'
            error = relative_error(value, reference[0])
            assert error <= tolerance, (
                f'{where}: value off by {error:g}: {value!r}, expected {reference[0]!r}'
            )
            _check_gradient(gradient, reference[1], x, where, gradient_tolerance or tolerance)


# --- the cases ------------------------------------------------------------------------------------


def _case(seed=0, batch=24, dim=2, classes=5, scale=1.0, offset=0.0, labels=None):
    random = np.random.RandomState(seed)
    if labels is None:
        labels = random.randint(0, classes, batch)
    x = offset + scale * random.randn(batch, dim)
    return (
        x.astype(np.float32),
        np.asarray(labels, np.int32),
        (offset + scale * random.randn(classes, dim)).astype(np.float32),
    )


def _on_centers(distance, dim, scale=1.0, offset=0.0, one_label=False):
    """Every sample at `distance` from its own center (0: exactly on it)."""
    labels = np.zeros(24) if one_label else None
    _, labels, centers = _case(seed=3, dim=dim, scale=scale, offset=offset, labels=labels)
    directions = np.random.RandomState(4).randn(len(labels), dim)
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    return (centers[labels] + distance * directions).astype(np.float32), labels, centers


CASES = {
    'random': lambda: _case(),
    'duplicates': lambda: _case(seed=1, batch=32, dim=3, classes=2),
    'all_one_label': lambda: _case(seed=2, batch=16, dim=3, labels=np.full(16, 3)),
    'batch_1': lambda: _case(batch=1, dim=3),
    'batch_2': lambda: _case(batch=2, dim=3),
    'batch_2_one_label': lambda: _case(batch=2, dim=3, labels=[4, 4]),
    'batch_128': lambda: _case(batch=128, dim=2, classes=10, scale=4.0),
    'prime_batch': lambda: _case(batch=127, dim=5, classes=10),
    'dim_1': lambda: _case(dim=1),
    'dim_3': lambda: _case(dim=3),
    'dim_17': lambda: _case(dim=17),
    'dim_128': lambda: _case(dim=128),
    'dim_512': lambda: _case(dim=512),
    'dim_512_unit_sphere': lambda: _case(dim=512, scale=1 / np.sqrt(512.0)),
    'on_centers': lambda: _on_centers(0.0, 2),
    'on_centers_17': lambda: _on_centers(0.0, 17),
    'on_centers_one_label': lambda: _on_centers(0.0, 2, one_label=True),
    'on_centers_one_label_far': lambda: _on_centers(0.0, 17, offset=1e4, one_label=True),
    'tiny_distances': lambda: _on_centers(1e-6, 2),
    'tiny_distances_512': lambda: _on_centers(1e-6, 512, scale=1e-6),
    'tiny_distances_one_label': lambda: _on_centers(1e-6, 17, scale=1e-3, one_label=True),
    'huge_distances': lambda: _case(scale=1e4),
    'huge_distances_512': lambda: _case(dim=512, scale=1e4),
    'huge_and_own_tiny': lambda: _on_centers(1e-2, 3, scale=1e4),
    'far_from_origin': lambda: _case(offset=1e4),
    'far_from_origin_512': lambda: _case(dim=512, offset=1e4),
    'far_and_close_512': lambda: _case(dim=512, offset=1e4, scale=1e-2, labels=np.zeros(24)),
    'far_and_close': lambda: _on_centers(1e-2, 17, offset=1e3, one_label=True),
}


@pytest.mark.parametrize('name', sorted(CASES))
def test_value_and_gradient_equal_the_double_loop(name):
    x, labels, centers = CASES[name]()
    _check(x, labels, centers, _evaluate(x, labels, centers))


@pytest.mark.parametrize('scale', [1e4, 1e6])
def test_classes_far_apart_cost_the_same_class_pairs_nothing(scale):
    """Samples 1e-2 from their centers, which are scale * sqrt(2 * 512) = 32 scale apart: the sum is
    that of the pairs of one class.
    """
    _, labels, centers = _case(batch=16, dim=512, classes=3, scale=scale)
    x = (centers[labels] + 1e-2 * np.random.RandomState(1).randn(16, 512) / np.sqrt(512)).astype(
        np.float32
    )
    _check(x, labels, centers, _evaluate(x, labels, centers))


@pytest.mark.parametrize('scale, tolerance', [(3e3, 1e-5), (3e4, 1e-3)])
def test_limit_of_the_gram_method(scale, tolerance):
    """Samples next to a center of *another* class, for the cancellation described in `_gram_terms`.
    The direct method has no limit. Three centers in 512 dimensions with normal coordinates of
    deviation s are s sqrt(2 * 512) = 32 s apart: 1e5 and 1e6. A fourth class has its center at
    distance 1 from the third. Half an ulp of a squared norm of (1e6)^2 is 1e12 * 1.1e-16 = 1e-4.
    """
    _, labels, centers = _case(batch=16, dim=512, classes=3, scale=scale)
    centers = np.concatenate([centers, centers[2:]])
    centers[3, 0] += 1.0
    labels = np.concatenate([labels, [2, 3, 2, 3]]).astype(np.int32)
    x = (centers[labels] + 1e-2 * np.random.RandomState(1).randn(20, 512) / np.sqrt(512)).astype(
        np.float32
    )
    results = _evaluate(x, labels, centers)
    _check(x, labels, centers, {('pairwise', 'gram'): results.pop(('pairwise', 'gram'))}, tolerance)
    _check(x, labels, centers, results)


@pytest.mark.parametrize('batch, dim', [(128, 512), (1024, 2)])
def test_large_batches(batch, dim):
    """Against the same formulas, one sample at a time against all centers (the double loop takes
    too long here).
    """
    x, labels, centers = _case(batch=batch, dim=dim, classes=50, scale=0.1)
    for (form, _), (_, _, git, gradient) in _evaluate(x, labels, centers).items():
        value, reference = 0.0, np.zeros(x.shape)
        for i in range(batch):
            difference = x[i].astype(np.float64) - centers[labels].astype(np.float64)
            if form == 'elementwise':
                difference[i] = 0.0
                terms = 1.0 / (1.0 + difference**2)
            else:
                terms = 1.0 / (1.0 + np.sum(difference**2, axis=1, keepdims=True))
                terms[i] = 0.0
            value += terms.sum()
            reference[i] = -2.0 * np.sum(difference * terms**2, axis=0)
        count = batch * batch * dim if form == 'elementwise' else batch * (batch - 1)
        assert relative_error(git, value / count) <= TOLERANCE
        assert relative_error(gradient, reference / count) <= TOLERANCE


# --- by hand --------------------------------------------------------------------------------------


def test_two_samples_in_one_dimension_by_hand():
    """x = 0 of class 0, x = 3 of class 1; centers 1 and 3.

    To the own centers: d = -1 and 0.
      elementwise: (1 + 0) / 2 = 0.5, gradient 2 d / (m dim) = d = -1, 0
      pairwise: 1/2 (1 + 0) / 2 = 0.25, gradient d / m = -0.5, 0
    To the other's center: 0 - 3 = -3, term 1/10; 3 - 1 = 2, term 1/5. d term / dx = -2 d term^2:
      6/100 and -4/25.
      pairwise: two pairs, (0.1 + 0.2) / 2 = 0.15, gradient 0.03, -0.08
      elementwise: four terms, the diagonal adds 1 + 1: (2 + 0.3) / 4 = 0.575, gradient 0.06 / 4 =
        0.015, -0.16 / 4 = -0.04
    """
    x, labels, centers = np.float32([[0], [3]]), np.int32([0, 1]), np.float32([[1], [3]])
    expected = {
        'elementwise': (0.5, [[-1], [0]], 0.575, [[0.015], [-0.04]]),
        'pairwise': (0.25, [[-0.5], [0]], 0.15, [[0.03], [-0.08]]),
    }
    for (form, _), values in _evaluate(x, labels, centers).items():
        for value, wanted in zip(values, expected[form]):
            np.testing.assert_allclose(value, wanted, rtol=1e-6)


def test_same_class_pairs_stay_in_by_hand():
    """x = (0, 0) and (1, 1), both of class 2, whose center is (0, 1).

    Squared distances to the other's center, which is the own one too: 1 and 1, coordinates (0, -1)
      and (1, 0).
      pairwise: (1/2 + 1/2) / 2 = 0.5; gradient -2 d / 4 / 2: (0, 0.25), (-0.25, 0)
      elementwise: eight terms: diagonal 4, off it 1 + 1/2 + 1/2 + 1 = 3: 7/8; gradient -2 d / 4 /
        8: (0, 1/16), (-1/16, 0)
    """
    x, labels, centers = (
        np.float32([[0, 0], [1, 1]]),
        np.int32([2, 2]),
        np.float32([[9, 9], [8, 8], [0, 1]]),
    )
    for (form, _), (_, _, git, gradient) in _evaluate(x, labels, centers).items():
        if form == 'pairwise':
            assert git == 0.5
            np.testing.assert_array_equal(gradient, [[0, 0.25], [-0.25, 0]])
        else:
            assert git == 7 / 8
            np.testing.assert_array_equal(gradient, [[0, 1 / 16], [-1 / 16, 0]])


def test_batch_of_one_has_no_pair():
    """Pairwise: no pair, 0. Elementwise: only the diagonal, 1. No gradient in either."""
    x, labels, centers = _case(batch=1, dim=3)
    for (form, _), (_, _, git, gradient) in _evaluate(x, labels, centers).items():
        assert git == (1.0 if form == 'elementwise' else 0.0)
        assert not gradient.any()


def test_the_diagonal_of_the_elementwise_form_is_a_constant():
    """Samples infinitely far from the centers of all others leave 1/m, the floor of the published
    git loss: 1/128 at batch 128.
    """
    x = np.full([128, 2], 1e9, np.float32)
    git = run_graph(
        lambda *inputs: losses.git_loss(*inputs),
        x,
        np.zeros(128, np.int32),
        np.zeros([1, 2], np.float32),
    )
    assert git == pytest.approx(1 / 128, rel=1e-6)


# --- types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
@pytest.mark.parametrize('dim', [2, 17])
def test_half_precision_inputs_are_computed_in_float32(dtype, dim):
    """Values are as accurate as for float32, given the rounded inputs; gradients are rounded to the
    type of the input. Half a unit in the last place is at most 2^-11 (float16) or 2^-8 (bfloat16, 8
    significant bits) of an entry; the mean over the batch of 24 makes float16 gradients small, so
    its subnormal spacing 2^-24 counts as well.
    """
    x, labels, centers = _case(dim=dim)
    low = tf.as_dtype(dtype)

    def build(x, labels, centers):
        rounded = [tf.cast(x, low), tf.cast(centers, low)]
        terms = [_terms(rounded[0], labels, rounded[1], form, method) for form, method in VARIANTS]
        assert all(
            tensor.dtype == (low if i % 2 else tf.float32)
            for four in terms
            for i, tensor in enumerate(four)
        )
        return [tf.cast(tensor, tf.float32) for tensor in rounded], [
            [tf.cast(t, tf.float32) for t in four] for four in terms
        ]

    (x, centers), values = run_graph(build, x, labels, centers)
    for (form, _), (center, center_gradient, git, git_gradient) in zip(VARIANTS, values):
        for value, gradient, reference in (
            (center, center_gradient, numpy_center(x, labels, centers, form)),
            (git, git_gradient, numpy_git(x, labels, centers, form)),
        ):
            assert relative_error(value, reference[0]) <= TOLERANCE
            np.testing.assert_allclose(
                gradient,
                reference[1],
                rtol=1.01 * (2.0**-11 if dtype == 'float16' else 2.0**-8),
                atol=2.0**-24 if dtype == 'float16' else 1e-7,
            )


@pytest.mark.parametrize('dim', [2, 17])
def test_float64_stays_float64(dim):
    x, labels, centers = (
        array.astype(np.float64) if array.dtype == np.float32 else array
        for array in _case(dim=dim, offset=10.0)
    )
    results = _evaluate(x, labels, centers)
    assert all(value.dtype == np.float64 for values in results.values() for value in values)
    _check(x, labels, centers, results, tolerance=1e-13)


def test_label_types_and_center_variables():
    """int32 and int64 labels, a tensor or a variable as centers: equal to the bit."""
    x, labels, centers = _case(dim=3)

    def build(x, labels, centers):
        table = tf.get_variable('table', initializer=np.asarray(_case(dim=3)[2]), use_resource=True)
        return [
            [
                _terms(x, tf.cast(labels, dtype), source, 'pairwise', None)
                for dtype in (tf.int32, tf.int64)
            ]
            for source in (centers, table)
        ]

    (reference, *others), (third, fourth) = run_graph(build, x, labels, centers)
    for other in others + [third, fourth]:
        for one, two in zip(reference, other):
            np.testing.assert_array_equal(one, two)


def test_methods_and_their_default():
    """None selects the direct method up to 8 dimensions (no float64 and no matrix product in the
    graph), and gram above.
    """
    for dim, products in ((8, 0), (9, 2)):
        with tf.Graph().as_default() as graph:
            x, labels, centers = tf.zeros([4, dim]), tf.zeros([4], tf.int32), tf.zeros([3, dim])
            losses.git_loss(x, labels, centers, 'pairwise')
            assert sum(node.op == 'MatMul' for node in all_nodes(graph)) == products


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'x, labels, centers, form, method, message',
    [
        (
            [4, 2],
            [4],
            [3, 2],
            'cosine',
            None,
            r"form: expected one of elementwise, pairwise\. Received: 'cosine'",
        ),
        (
            [4, 2],
            [4],
            [3, 2],
            ('pairwise', 'angle'),
            None,
            r"distance: expected one of euclidean, cosine\. Received: 'angle'",
        ),
        (
            [4, 2],
            [4],
            [3, 2],
            'pairwise',
            'fast',
            r"method: expected one of direct, gram, unrolled\. Received: 'fast'",
        ),
        (
            [4, 2],
            [4],
            [3, 2],
            'elementwise',
            'gram',
            r"method: expected one of direct, unrolled\. Received: 'gram'",
        ),
        (
            [4],
            [4],
            [3, 2],
            'pairwise',
            None,
            r'embeddings: expected float \[batch, dim\]\. Received: float32 of shape \(4,\)',
        ),
        (
            [4, 2],
            [4, 1],
            [3, 2],
            'pairwise',
            None,
            r'labels: expected int32 or int64 \[batch\] for .* Received: int32 of shape \(4, 1\)',
        ),
        (
            [4, 2],
            [4],
            [6],
            'pairwise',
            None,
            r'centers: expected float \[classes, dim\] for .* Received: float32 of shape \(6,\)',
        ),
        (
            [4, 2],
            [5],
            [3, 2],
            'pairwise',
            None,
            r'labels: .* for embeddings of shape \(4, 2\)\. Received: int32 of shape \(5,\)',
        ),
        (
            [4, 2],
            [4],
            [3, 7],
            'pairwise',
            None,
            r'centers: .* for embeddings of shape \(4, 2\)\. Received: float32 of shape \(3, 7\)',
        ),
        (
            None,
            [4],
            [3, 2],
            'pairwise',
            None,
            r'embeddings: expected float \[batch, dim\]\. Received: float32 of shape <unknown>',
        ),
    ],
)
def test_what_does_not_fit_is_named(x, labels, centers, form, method, message):
    form, distance = form if isinstance(form, tuple) else (form, 'euclidean')
    with tf.Graph().as_default():
        x, labels, centers = (
            tf.placeholder(tf.float32, x),
            tf.placeholder(tf.int32, labels),
            tf.placeholder(tf.float32, centers),
        )
        with pytest.raises(ValueError, match=message):
            losses.git_loss(x, labels, centers, form, distance, method)
        if not message.startswith('method'):
            with pytest.raises(ValueError, match=message):
                losses.center_loss(x, labels, centers, form, distance)
        if message[:4] not in ('meth', 'form'):
            with pytest.raises(ValueError, match=message):
                losses.updated_centers(centers, x, labels, distance=distance)


@pytest.mark.parametrize(
    'x_type, label_type, message',
    [
        (tf.int32, tf.int32, r'embeddings: expected float \[batch, dim\]. Received: int32 '),
        (
            tf.float32,
            tf.float32,
            r'labels: expected int32 or int64 \[batch\] for .* Received: float32 ',
        ),
        (
            tf.float32,
            tf.uint8,
            r'labels: expected int32 or int64 \[batch\] for .* Received: uint8 ',
        ),
    ],
)
def test_wrong_types_are_named(x_type, label_type, message):
    with tf.Graph().as_default():
        x, labels, centers = tf.zeros([4, 2], x_type), tf.zeros([4], label_type), tf.zeros([3, 2])
        for function in (losses.git_loss, losses.center_loss):
            with pytest.raises(ValueError, match=message):
                function(x, labels, centers)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'num_classes': 0}, 'num_classes: expected at least 1. Received: 0'),
        ({'num_classes': 3, 'alpha': 1.5}, r'alpha: expected a number in \[0, 1\]. Received: 1.5'),
        (
            {'num_classes': 3, 'alpha': float('nan')},
            r'alpha: expected a number in \[0, 1\]. Received: nan',
        ),
        (
            {'num_classes': 3, 'form': 'euclid'},
            "form: expected one of elementwise, pairwise. Received: 'euclid'",
        ),
    ],
)
def test_wrong_layer_arguments_are_named(arguments, message):
    for layer in (losses.CenterLoss, losses.GitLoss):
        with pytest.raises(ValueError, match=message):
            layer(**arguments)


@pytest.mark.parametrize(
    'own_centers, received', [((4,), r'\(4,\)'), ((5, 2), r'\(5, 2\)'), ((4, 3), r'\(4, 3\)')]
)
def test_wrong_rows_are_named(own_centers, received):
    message = (
        r'own_centers: expected float \[batch, dim\] for embeddings of shape \(4, 2\)\. '
        f'Received: float32 of shape {received}'
    )
    with tf.Graph().as_default():
        x, labels, rows = tf.zeros([4, 2]), tf.zeros([4], tf.int32), tf.zeros(own_centers)
        with pytest.raises(ValueError, match=message):
            losses.center_term(x, rows)
        with pytest.raises(ValueError, match=message):
            losses.git_term(x, labels, rows)


@pytest.mark.parametrize('form, method', VARIANTS)
def test_terms_over_rows_equal_the_double_loop(form, method):
    """Each sample brings its own center; the rows of a table in another order, 3.0 added to each
    number, under other labels. No gradient reaches the rows.
    """
    x, labels, centers = _case(dim=17)
    renamed, moved = 4 - labels, centers[::-1] + 3

    def build(x, renamed, rows):
        center = losses.center_term(x, rows, form)
        git = losses.git_term(x, renamed, rows, form, method=method)
        assert tf.gradients(center + git, rows) == [None]
        return [center, tf.gradients(center, x)[0], git, tf.gradients(git, x)[0]]

    results = run_graph(build, x, renamed, moved[renamed])
    _check(x, renamed, moved, {(form, method): results})


# --- properties -----------------------------------------------------------------------------------

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
        fetches = {variant: _terms(*(inputs + variant)) for variant in VARIANTS}
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
    _check(x, labels, centers, fixed_graph(x, labels, centers))


# --- cosine distance ------------------------------------------------------------------------------


def _unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize('dim', [2, 17])
@pytest.mark.parametrize('form', losses.FORMS)
def test_cosine_distance_equals_the_double_loop_on_unit_vectors(form, dim):
    """u = x / |x|, so that a gradient g with respect to u is (g - (g.u) u) / |x| with respect to
    x.
    """
    x, labels, centers = _case(dim=dim, scale=3.0)

    def build(x, labels, centers):
        terms = [
            f(x, labels, centers, form, distance='cosine')
            for f in (losses.center_loss, losses.git_loss)
        ]
        assert tf.gradients(sum(terms), centers) == [None]
        return [[term, tf.gradients(term, x)[0]] for term in terms]

    unit = _unit(x.astype(np.float64))
    for (value, gradient), function in zip(
        run_graph(build, x, labels, centers), (numpy_center, numpy_git)
    ):
        expected, slope = function(unit, labels, _unit(centers.astype(np.float64)), form)
        slope = (slope - np.sum(slope * unit, axis=1, keepdims=True) * unit) / np.linalg.norm(
            x, axis=1, keepdims=True
        )
        assert relative_error(value, expected) <= TOLERANCE
        assert relative_error(gradient, slope) <= TOLERANCE


def test_cosine_distance_by_hand():
    """x = (0, 5) with its center (3, 0): at a right angle 2 (1 - cos) = 2, halved 1. Their lengths
    do not matter.
    """
    x, labels, centers = np.float32([[0, 5]]), np.int32([0]), np.float32([[3, 0]])
    value = run_graph(
        lambda *inputs: losses.center_loss(*inputs, form='pairwise', distance='cosine'),
        x,
        labels,
        centers,
    )
    assert value == pytest.approx(1.0, rel=1e-6)


def test_cosine_centers_move_towards_unit_vectors():
    x, labels, centers = _case(dim=3, scale=3.0)
    moved = run_graph(
        lambda *inputs: losses.updated_centers(*inputs, distance='cosine'), centers, x, labels
    )
    np.testing.assert_allclose(
        moved, numpy_update(centers, _unit(x.astype(np.float64)), labels, 0.5), rtol=1e-5, atol=1e-6
    )


# --- diagnostics ----------------------------------------------------------------------------------


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


def test_mean_drift_by_hand():
    """Class 0 (two samples) moves by (3, 4), length 5; class 1 (one sample) by (1, 0): mean 3."""
    before, after = np.zeros([3, 2], np.float32), np.float32([[3, 4], [1, 0], [3, 4]])
    assert run_graph(
        lambda *inputs: losses.mean_drift(*inputs), before, after, np.int32([0, 1, 0])
    ) == pytest.approx(3.0, rel=1e-6)


# --- blocks, memory, modes ------------------------------------------------------------------------


@pytest.mark.parametrize('batch, block_floats', [(24, 24 * 24 * 2), (24, 1), (23, 1)])
def test_row_blocks_equal_the_double_loop(monkeypatch, batch, block_floats):
    """Blocks are the largest divisor r of the batch with r * batch * dim <= block floats, or single
    rows; dim 17.

    24, 1152: r * 408 <= 1152, r = 2, twelve blocks. 24, 1: r = 1. A prime batch: r = 1 as well.
    """
    monkeypatch.setattr(pairs, 'BLOCK_FLOATS', block_floats)
    x, labels, centers = _case(batch=batch, dim=17)
    with tf.Graph().as_default() as graph:
        losses.git_loss(
            tf.zeros(x.shape), tf.zeros(labels.shape, tf.int32), tf.zeros(centers.shape)
        )
        assert any(node.op in ('LoopCond', 'While', 'StatelessWhile') for node in all_nodes(graph))
    _check(x, labels, centers, _evaluate(x, labels, centers))


@pytest.mark.parametrize('form', ['elementwise', 'pairwise'])
def test_unrolled_blocks_equal_the_double_loop(monkeypatch, form):
    """16 * 36 floats, dim 17, batch 24: r * 24 * 17 <= 576, r = 1, so 24 blocks, and no loop in the
    graph.
    """
    monkeypatch.setattr(pairs, 'BLOCK_FLOATS', 36)
    x, labels, centers = _case(batch=24, dim=17)
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
    results = run_graph(lambda *inputs: _terms(*(inputs + (form, 'unrolled'))), x, labels, centers)
    _check(x, labels, centers, {(form, 'unrolled'): results})


def test_batch_unknown_at_build_time():
    x, labels, centers = _case(batch=7, dim=3)
    with graph_session() as session:
        inputs = (
            tf.placeholder(tf.float32, [None, 3]),
            tf.placeholder(tf.int32, [None]),
            tf.placeholder(tf.float32, [None, 3]),
        )
        fetches = {variant: _terms(*(inputs + variant)) for variant in VARIANTS}
        for count in (7, 2, 1):
            results = session.run(
                fetches, {inputs[0]: x[:count], inputs[1]: labels[:count], inputs[2]: centers}
            )
            _check(x[:count], labels[:count], centers, results)


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
        _terms(x, labels, centers, form, method)
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
    x, labels, centers = _case(dim=9)
    results = {}
    for variant in VARIANTS:
        position = tf.constant(x)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(position)
            center = losses.center_loss(position, labels, centers, variant[0])
            git = losses.git_loss(position, labels, centers, variant[0], method=variant[1])
        four = (center, tape.gradient(center, position), git, tape.gradient(git, position))
        results[variant] = [tensor.numpy() for tensor in four]
    _check(x, labels, centers, results)


# --- the rule that moves the centers --------------------------------------------------------------


def test_center_rule_by_hand():
    """alpha 0.5. Class 0, center 1, samples 1 and 4: delta = ((1 - 1) + (1 - 4)) / (1 + 2) = -1,
    moves to 1.5.
    Class 1, center 2, sample 6: delta = (2 - 6) / 2 = -2, moves to 3. Class 2 has no sample and
    stays at 7.
    """
    x, labels, centers = (
        np.float32([[1], [6], [4]]),
        np.int32([0, 1, 0]),
        np.float32([[1], [2], [7]]),
    )
    moved = run_graph(lambda *inputs: losses.updated_centers(*inputs), centers, x, labels)
    np.testing.assert_allclose(moved, [[1.5], [3], [7]], rtol=1e-6)


@pytest.mark.parametrize('alpha', [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    'name', ['random', 'duplicates', 'all_one_label', 'batch_1', 'dim_512', 'far_from_origin']
)
def test_center_rule_equals_the_loop(name, alpha):
    x, labels, centers = CASES[name]()
    moved = run_graph(
        lambda *inputs: losses.updated_centers(*inputs, alpha=alpha), centers, x, labels
    )
    reference = numpy_update(centers, x, labels, alpha)
    # About an ulp per subtracted sample, relative to the coordinates, because the steps themselves
    # may cancel.
    assert np.abs(moved - reference).max() <= 3e-7 * np.abs(centers).max() * max(
        np.bincount(labels)
    )
    absent = np.setdiff1d(np.arange(len(centers)), labels)
    np.testing.assert_array_equal(moved[absent], centers[absent])


def _batches(steps, batch=16, dim=3, classes=6, seed=5):
    random = np.random.RandomState(seed)
    for _ in range(steps):
        # The last class never occurs.
        yield (
            random.randn(batch, dim).astype(np.float32),
            random.randint(0, classes - 1, batch).astype(np.int32),
        )


@pytest.mark.parametrize('form', losses.FORMS)
def test_layers_move_the_centers_as_numpy_does_over_fifty_steps(form):
    """alpha 0.5. Classes 0-4 of 6 occur, with duplicates; class 5 does not change by a bit. Only
    the update op changes the centers.
    """
    with graph_session() as session:
        x, labels = tf.placeholder(tf.float32, [16, 3]), tf.placeholder(tf.int32, [16])
        center_layer = losses.CenterLoss(6, form=form)
        git_layer = losses.GitLoss(6, form=form, share=center_layer)
        terms = center_layer([x, labels]), git_layer([x, labels])
        update = center_layer.update(x, labels)
        session.run(tf.global_variables_initializer())
        table = center_layer.centers
        np.testing.assert_array_equal(session.run(table), np.zeros([6, 3]))
        start = np.random.RandomState(6).randn(6, 3).astype(np.float32)
        session.run(table.assign(start))
        expected, counts = start.astype(np.float64), np.zeros(6, np.int64)
        for images, numbers in _batches(50):
            counts += np.bincount(numbers, minlength=6)
            feed = {x: images, labels: numbers}
            before = session.run(table)
            values = session.run(terms, feed)
            assert (
                relative_error(values[0], numpy_center(images, numbers, before, form)[0])
                <= TOLERANCE
            )
            assert (
                relative_error(values[1], numpy_git(images, numbers, before, form)[0]) <= TOLERANCE
            )
            # Evaluating the losses does not update the centers.
            np.testing.assert_array_equal(session.run(table), before)
            session.run(update, feed)
            expected = numpy_update(expected, images, numbers, 0.5)
            after = session.run(table)
            np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
            assert after[5].tobytes() == start[5].tobytes()
        np.testing.assert_array_equal(session.run(center_layer.updates), counts)


def test_layer_update_equals_the_function():
    x, labels, centers = _case(dim=3)

    def build(x, labels, centers):
        layer = losses.GitLoss(5, alpha=0.3)
        layer([x, labels])
        with tf.control_dependencies([layer.centers.assign(centers)]):
            update = layer.update(x, labels)
        with tf.control_dependencies([update]):
            return layer.centers.read_value(), losses.updated_centers(centers, x, labels, 0.3)

    np.testing.assert_allclose(*run_graph(build, x, labels, centers), rtol=1e-6, atol=1e-7)


def _training_step(x, labels, form, learning_rate=0.5, alpha=0.5):
    """A step in the order of the trainer. The embeddings are x W; the trained W [2, 2] starts as
    the identity.
    """
    weights = tf.get_variable('weights', initializer=np.eye(2, dtype=np.float32), use_resource=True)
    embeddings = tf.matmul(x, weights)
    center_layer = losses.CenterLoss(4, form=form, alpha=alpha)
    git_layer = losses.GitLoss(4, form=form, share=center_layer)
    loss = center_layer([embeddings, labels]) + git_layer([embeddings, labels])
    optimizer = tf.train.GradientDescentOptimizer(learning_rate)
    gradients = optimizer.compute_gradients(loss, [weights])
    with tf.control_dependencies([loss] + [gradient for gradient, _ in gradients]):
        move = center_layer.update(embeddings, labels)
    return (
        loss,
        gradients[0][0],
        tf.group(optimizer.apply_gradients(gradients), move),
        weights,
        center_layer.centers,
    )


@pytest.mark.parametrize('form', losses.FORMS)
def test_loss_and_gradients_see_the_centers_from_before_the_step(form):
    """Two steps in NumPy: loss and gradient from the old weight and centers, then both are
    updated.
    """
    random = np.random.RandomState(8)
    batches = [
        (random.randn(8, 2).astype(np.float32), random.randint(0, 4, 8).astype(np.int32))
        for _ in range(2)
    ]
    start = random.randn(4, 2).astype(np.float32)
    with graph_session() as session:
        x, labels = tf.placeholder(tf.float32, [8, 2]), tf.placeholder(tf.int32, [8])
        loss, gradient, train, weights, table = _training_step(x, labels, form)
        assign = table.assign(start)
        session.run(tf.global_variables_initializer())
        session.run(assign)
        matrix, centers = np.eye(2), start.astype(np.float64)
        for images, numbers in batches:
            embeddings = np.matmul(images, matrix)
            center, center_gradient = numpy_center(embeddings, numbers, centers, form)
            git, git_gradient = numpy_git(embeddings, numbers, centers, form)
            slope = np.matmul(images.T, center_gradient + git_gradient)
            values = session.run([loss, gradient, train], {x: images, labels: numbers})
            assert values[0] == pytest.approx(center + git, rel=1e-5)
            assert relative_error(values[1], slope) <= TOLERANCE
            centers, matrix = numpy_update(centers, embeddings, numbers, 0.5), matrix - 0.5 * slope
            np.testing.assert_allclose(session.run(table), centers, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(session.run(weights), matrix, rtol=1e-5, atol=1e-6)


def _ancestors(op):
    found, todo = set(), [op]
    while todo:
        op = todo.pop()
        found.add(op)
        todo += [
            other
            for other in [tensor.op for tensor in op.inputs] + list(op.control_inputs)
            if other not in found
        ]
    return found


@pytest.mark.parametrize('form', losses.FORMS)
def test_every_read_of_the_centers_comes_before_their_update(form):
    """By the edges of the graph, so that no scheduler can reorder them. All shapes are static, and
    the op types work on an NPU.
    """
    with tf.Graph().as_default() as graph:
        x, labels = tf.zeros([8, 2]), tf.zeros([8], tf.int32)
        _, _, train, _, table = _training_step(x, labels, form)
        (move,) = [op for op in table.handle.consumers() if op.type == 'ResourceScatterSub']
        readers = [
            op for op in table.handle.consumers() if op.type in ('ResourceGather', 'GatherV2')
        ]
        plain_reads = [op for op in table.handle.consumers() if op.type == 'ReadVariableOp']
        # Of center loss, git loss and the update itself.
        assert len(readers) == 3 and _ancestors(move).issuperset(readers)
        # Keras and `table.handle` make reads that nothing uses; none feeds another op.
        assert all(not tensor.consumers() for op in plain_reads for tensor in op.outputs)
        assert move in _ancestors(train)
        for node in all_nodes(graph):
            assert not node.op.startswith('Unique')
            assert all(shape.is_fully_defined() for shape in static_shapes(node)), node.name
            # 2: DT_DOUBLE.
            assert not any(attribute.type == 2 for attribute in node.attr.values()), node.name


def test_sharing_layer_has_no_table_of_its_own():
    with tf.Graph().as_default():
        x, labels = tf.zeros([8, 2]), tf.zeros([8], tf.int32)
        center_layer = losses.CenterLoss(4, name='center_loss')
        git_layer = losses.GitLoss(4, share=center_layer, name='git_loss')
        assert center_layer.centers is None
        center_layer([x, labels])
        git_layer([x, labels])
        assert all(variable.name.startswith('center_loss/') for variable in tf.global_variables())
        assert (
            git_layer.centers is center_layer.centers and git_layer.updates is center_layer.updates
        )
        assert not center_layer.trainable_weights and not git_layer.trainable_weights
        assert not tf.trainable_variables()


def test_sharing_needs_a_table_that_fits():
    with tf.Graph().as_default():
        x, labels = tf.zeros([8, 2]), tf.zeros([8], tf.int32)
        center_layer = losses.CenterLoss(4, name='center_loss')
        with pytest.raises(
            ValueError, match='share: expected a layer with 5 classes. Received: center_loss with 4'
        ):
            losses.GitLoss(5, share=center_layer)
        with pytest.raises(
            ValueError, match='Received: None; call the layer that owns the table first'
        ):
            losses.GitLoss(4, share=center_layer)([x, labels])
        with pytest.raises(
            ValueError, match='Received: None; call the layer that owns the table first'
        ):
            center_layer.update(x, labels)


def test_config_round_trip():
    for layer in (losses.CenterLoss, losses.GitLoss):
        one = layer(7, form='pairwise', alpha=0.25, distance='cosine', name='some_name')
        two = layer.from_config(one.get_config())
        assert (two.num_classes, two.form, two.alpha, two.distance, two.name) == (
            7,
            'pairwise',
            0.25,
            'cosine',
            'some_name',
        )


def test_float64_embeddings_move_a_float32_table():
    """The table of a layer is float32 by default, whatever the inputs are."""
    x, labels, _ = _case(dim=3)

    def build(x, labels):
        layer = losses.CenterLoss(5)
        layer([tf.cast(x, tf.float32), labels])
        with tf.control_dependencies([layer.update(x, labels)]):
            return layer.centers.read_value()

    moved = run_graph(build, x.astype(np.float64), labels)
    np.testing.assert_allclose(
        moved, numpy_update(np.zeros([5, 3]), x, labels, 0.5), rtol=1e-5, atol=1e-6
    )
