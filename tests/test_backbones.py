"""The networks against NumPy, and what their initial weights depend on."""

import numpy as np
import pytest

from gitloss import heads, model
from gitloss.backbones import BACKBONES
from gitloss.backend import tf
from gitloss.data.source import DataSpec, Preprocessing

MNIST = DataSpec('mnist', (28, 28, 1), 10)
SMALL = DataSpec('small', (8, 8, 1), 3)

MNIST_CNN_WEIGHTS = [
    ('preprocess/mean_image', (28, 28, 1)),
    ('conv1_1/kernel', (3, 3, 1, 32)),
    ('conv1_1/bias', (32,)),
    ('conv1_2/kernel', (3, 3, 32, 32)),
    ('conv1_2/bias', (32,)),
    ('conv2_1/kernel', (3, 3, 32, 64)),
    ('conv2_1/bias', (64,)),
    ('conv2_2/kernel', (3, 3, 64, 64)),
    ('conv2_2/bias', (64,)),
    ('conv3_1/kernel', (3, 3, 64, 128)),
    ('conv3_1/bias', (128,)),
    ('conv3_2/kernel', (3, 3, 128, 128)),
    ('conv3_2/bias', (128,)),
    ('embeddings/kernel', (1152, 2)),
    ('embeddings/bias', (2,)),
    ('prelu/alpha', (2,)),
    ('logits/kernel', (2, 10)),
    ('logits/bias', (10,)),
]


def _network(name, spec, seed=1):
    """(model, logits, all weights) of a network with 2-dimensional embeddings and softmax."""
    net = model.build(spec, name, 2, seed=seed)
    classifier = heads.Classifier(
        heads.head('softmax'), 2, spec.num_classes, BACKBONES[name].slope, seed
    )
    logits = classifier.logits(net.output)
    return net, logits, net.weights + classifier.weights


def test_mnist_cnn_is_the_published_network():
    """Names and shapes pin the architecture: 28 -> 14 -> 7 -> 3 by three pools without padding, so
    3 * 3 * 128 = 1152 inputs.
    """
    with tf.Graph().as_default():
        _, _, weights = _network('mnist_cnn', MNIST)
        assert sorted((v.name.split(':')[0], tuple(v.shape.as_list())) for v in weights) == sorted(
            MNIST_CNN_WEIGHTS
        )


@pytest.mark.parametrize(
    'preprocessing',
    [Preprocessing(mean=np.full((8, 8, 1), 0.25, np.float32)), Preprocessing(128.0, 0.25)],
    ids=['mean image', 'one mean'],
)
def test_forward_pass_equals_numpy(preprocessing):
    """One image through preprocessing, convolutions, pools and dense layers, by loops in
    float64.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        net, outputs, variables = _network('mnist_cnn', SMALL._replace(preprocessing=preprocessing))
        session.run(tf.global_variables_initializer())
        weights = {
            v.name.split(':')[0]: value.astype(np.float64)
            for v, value in zip(variables, session.run(variables))
        }
        image = np.random.RandomState(0).randint(0, 256, (1, 8, 8, 1))
        embeddings, logits = session.run([net.output, outputs], {net.input: image})
    x = image[0] / preprocessing.divisor - 0.25
    for stage in '123':
        for part in '12':
            kernel, bias = (weights[f'conv{stage}_{part}/{name}'] for name in ('kernel', 'bias'))
            padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), 'constant')
            x = np.array(
                [
                    [
                        np.tensordot(padded[r : r + 3, c : c + 3], kernel, 3) + bias
                        for c in range(x.shape[1])
                    ]
                    for r in range(x.shape[0])
                ]
            )
            x = np.maximum(x, 0)
        x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max(axis=(1, 3))
    vector = x.ravel().dot(weights['embeddings/kernel']) + weights['embeddings/bias']
    active = np.where(vector > 0, vector, weights['prelu/alpha'] * vector)
    np.testing.assert_allclose(embeddings[0], vector, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        logits[0],
        active.dot(weights['logits/kernel']) + weights['logits/bias'],
        rtol=1e-4,
        atol=1e-6,
    )


def test_lenet_pp_layers():
    """Pairs of 5x5 convolutions of 32, 64, 128 filters, one PReLU slope per channel, starting at
    0.25.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        _, _, weights = _network('lenet_pp', MNIST)
        shapes = {v.name.split(':')[0]: tuple(v.shape.as_list()) for v in weights}
        session.run(tf.global_variables_initializer())
        slopes = session.run([v for v in weights if v.name.endswith('alpha:0')])
    assert [shapes[f'conv{s}_{p}/kernel'] for s in (1, 2, 3) for p in (1, 2)] == [
        (5, 5, 1, 32),
        (5, 5, 32, 32),
        (5, 5, 32, 64),
        (5, 5, 64, 64),
        (5, 5, 64, 128),
        (5, 5, 128, 128),
    ]
    assert [shapes[f'prelu{s}_1/alpha'] for s in (1, 2, 3)] == [
        (1, 1, 32),
        (1, 1, 64),
        (1, 1, 128),
    ]
    assert all(np.all(slope == 0.25) for slope in slopes)


def _weights(seed, before=0):
    with tf.Graph().as_default(), tf.Session() as session:
        for _ in range(before):
            tf.random_uniform([3])
        _, _, weights = _network('mnist_cnn', SMALL, seed)
        session.run(tf.global_variables_initializer())
        return session.run(weights)


def test_weights_depend_on_the_seed_and_on_nothing_else():
    """Initial weights do not depend on other operations in the graph. The pinned sum is the same on
    TensorFlow 1.15 and 2.21.
    """
    one, same, other = _weights(1), _weights(1, before=3), _weights(2)
    assert all(np.array_equal(a, b) for a, b in zip(one, same))
    assert not np.array_equal(one[1], other[1])
    total = float(sum(np.abs(w).sum(dtype=np.float64) for w in one))
    assert total == pytest.approx(SUM_OF_SEED_1, rel=1e-7)


SUM_OF_SEED_1 = 8550.665861062706  # sum of absolute weights, seen on both TensorFlows


def test_embedding_size_and_static_shapes():
    with tf.Graph().as_default():
        net = model.build(MNIST, 'mnist_cnn', 64, batch_size=5)
        logits = heads.Classifier(heads.head('softmax'), 64, 7).logits(net.output)
        assert [output.shape.as_list() for output in (net.output, logits)] == [[5, 64], [5, 7]]


@pytest.mark.parametrize(
    'name, shape, said',
    [
        ('vgg', (28, 28, 1), "^model: expected one of .*lenet_pp.*:NAME. Received: 'vgg'$"),
        (
            'applications:VGG',
            (28, 28, 1),
            "^model=applications:NAME: expected one of .*, MobileNet, .*Xception. Received: 'VGG'$",
        ),
        (
            'applications:MobileNetV2',
            (31, 32, 3),
            r'^image_shape: .* MobileNetV2 takes.* Received: \(31, 32, 3\); Input size.*32',
        ),
        (
            'applications:MobileNetV2',
            (32, 32, 2),
            r'^image_shape: .* MobileNetV2 takes, 1 or 3 channels. Received: \(32, 32, 2\)$',
        ),
        ('mobilefacenet', (16, 15, 3), '^image_shape: expected .* of 16 x 16 pixels or more for'),
        ('inception_resnet_v1', (74, 80, 3), '^image_shape: expected .* of 75 x 75 pixels or more'),
        (
            'lenet_pp',
            (4, 9, 1),
            r'image_shape: expected .* of 8 x 8 pixels or more for lenet_pp. '
            r'Received: \(4, 9, 1\)',
        ),
        ('mnist_cnn', (28, 28), r'image_shape: expected \(height, .* Received: \(28, 28\)'),
    ],
)
def test_mistakes_are_named(name, shape, said):
    with tf.Graph().as_default(), pytest.raises(ValueError, match=said):
        model.build(MNIST._replace(image_shape=shape), name, 2)
