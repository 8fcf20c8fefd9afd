"""What does not fit is named: shapes, types, choices, arguments of the layers."""

import pytest

from gitloss import losses
from gitloss.backend import tf


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
