"""The losses in slow, simple float64 NumPy, and the batches that they are compared on.

Tolerances for float32 inputs: a value is off by at most 1e-5 of itself. A gradient is off by at
most 1e-5 of its largest entry: an entry is a sum over the batch in which terms may cancel, so small
entries are only as accurate as the large ones. Where the exact gradient is zero everywhere, see
`check_gradient`.
"""

import numpy as np

from gitloss import losses
from gitloss.backend import tf
from helpers import relative_error, run_graph

TOLERANCE = 1e-5
# Computed in one run per case: (name, form, method of the git term).
VARIANTS = (('elementwise', None), ('pairwise', 'direct'), ('pairwise', 'gram'))


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


def loss_terms(x, labels, centers, form, method):
    """[value, gradient] of the center term and of the git term, and the gradient of their sum with
    respect to the centers.
    """
    center = losses.center_loss(x, labels, centers, form)
    git = losses.git_loss(x, labels, centers, form, method=method)
    into_centers = tf.gradients(center + git, centers)[0]
    assert into_centers is None, 'a gradient flows into the centers'
    return [center, tf.gradients(center, x)[0], git, tf.gradients(git, x)[0]]


def evaluate(x, labels, centers, variants=VARIANTS):
    """{(form, method): the four values of `loss_terms`}."""
    values = run_graph(
        lambda *inputs: [loss_terms(*(inputs + variant)) for variant in variants],
        x,
        labels,
        centers,
    )
    return dict(zip(variants, values))


def check_gradient(gradient, reference, x, where, tolerance=TOLERANCE):
    """Relative to the largest entry; where all entries cancel, to 1e-13 of the largest coordinate
    (float64's own rounding).
    """
    deviation = np.abs(np.asarray(gradient, np.float64) - reference).max()
    allowed = tolerance * np.abs(reference).max() + 1e-13 * np.abs(np.asarray(x, np.float64)).max()
    assert np.isfinite(gradient).all() and deviation <= allowed, (
        f'{where}: gradient off by {deviation:g} of {allowed:g}'
    )


def check(x, labels, centers, results, tolerance=TOLERANCE, gradient_tolerance=None):
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
            check_gradient(gradient, reference[1], x, where, gradient_tolerance or tolerance)


def case(seed=0, batch=24, dim=2, classes=5, scale=1.0, offset=0.0, labels=None):
    random = np.random.RandomState(seed)
    if labels is None:
        labels = random.randint(0, classes, batch)
    x = offset + scale * random.randn(batch, dim)
    return (
        x.astype(np.float32),
        np.asarray(labels, np.int32),
        (offset + scale * random.randn(classes, dim)).astype(np.float32),
    )


def on_centers(distance, dim, scale=1.0, offset=0.0, one_label=False):
    """Every sample at `distance` from its own center (0: exactly on it)."""
    labels = np.zeros(24) if one_label else None
    _, labels, centers = case(seed=3, dim=dim, scale=scale, offset=offset, labels=labels)
    directions = np.random.RandomState(4).randn(len(labels), dim)
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    return (centers[labels] + distance * directions).astype(np.float32), labels, centers


CASES = {
    'random': lambda: case(),
    'duplicates': lambda: case(seed=1, batch=32, dim=3, classes=2),
    'all_one_label': lambda: case(seed=2, batch=16, dim=3, labels=np.full(16, 3)),
    'batch_1': lambda: case(batch=1, dim=3),
    'batch_2': lambda: case(batch=2, dim=3),
    'batch_2_one_label': lambda: case(batch=2, dim=3, labels=[4, 4]),
    'batch_128': lambda: case(batch=128, dim=2, classes=10, scale=4.0),
    'prime_batch': lambda: case(batch=127, dim=5, classes=10),
    'dim_1': lambda: case(dim=1),
    'dim_3': lambda: case(dim=3),
    'dim_17': lambda: case(dim=17),
    'dim_128': lambda: case(dim=128),
    'dim_512': lambda: case(dim=512),
    'dim_512_unit_sphere': lambda: case(dim=512, scale=1 / np.sqrt(512.0)),
    'on_centers': lambda: on_centers(0.0, 2),
    'on_centers_17': lambda: on_centers(0.0, 17),
    'on_centers_one_label': lambda: on_centers(0.0, 2, one_label=True),
    'on_centers_one_label_far': lambda: on_centers(0.0, 17, offset=1e4, one_label=True),
    'tiny_distances': lambda: on_centers(1e-6, 2),
    'tiny_distances_512': lambda: on_centers(1e-6, 512, scale=1e-6),
    'tiny_distances_one_label': lambda: on_centers(1e-6, 17, scale=1e-3, one_label=True),
    'huge_distances': lambda: case(scale=1e4),
    'huge_distances_512': lambda: case(dim=512, scale=1e4),
    'huge_and_own_tiny': lambda: on_centers(1e-2, 3, scale=1e4),
    'far_from_origin': lambda: case(offset=1e4),
    'far_from_origin_512': lambda: case(dim=512, offset=1e4),
    'far_and_close_512': lambda: case(dim=512, offset=1e4, scale=1e-2, labels=np.zeros(24)),
    'far_and_close': lambda: on_centers(1e-2, 17, offset=1e3, one_label=True),
}
