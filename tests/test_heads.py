import numpy as np
import pytest

from gitloss import heads
from gitloss.backend import tf


def run(function, *arrays):
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.constant(array) for array in arrays]
        outputs = function(*inputs)
        gradient = tf.gradients(outputs, inputs[0])[0]
        return session.run([outputs, gradient])


def random_cosines(seed=0, batch=20, classes=5):
    random = np.random.RandomState(seed)
    return random.uniform(-0.99, 0.99, (batch, classes)).astype(np.float32), random.randint(
        0, classes, batch
    ).astype(np.int32)


@pytest.mark.parametrize('margin, scale', [(0.5, 64.0), (0.0, 1.0), (0.3, 16.0)])
def test_arcface_equals_the_formula(margin, scale):
    """64 cos(arccos(c) + 0.5) at the label if that angle is below pi, else 64 (c - 0.5 sin 0.5); 64
    c at the other classes.
    """
    cosines, labels = random_cosines()
    logits, _ = run(lambda c, y: heads.arcface_logits(c, y, margin, scale), cosines, labels)
    expected = scale * cosines.astype(np.float64)
    for i, label in enumerate(labels):
        angle = np.arccos(np.float64(cosines[i, label])) + margin
        expected[i, label] = scale * (
            np.cos(angle) if angle < np.pi else cosines[i, label] - margin * np.sin(margin)
        )
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5 * scale)


def test_arcface_by_hand():
    """cos = 0 at the label: cos(pi/2 + 0.5) = -sin 0.5 = -0.479426; times 2: -0.958851. The other
    class: 2 * 0.5 = 1.
    """
    logits, _ = run(
        lambda c, y: heads.arcface_logits(c, y, 0.5, 2.0),
        np.array([[0.0, 0.5]], np.float32),
        np.array([0], np.int32),
    )
    np.testing.assert_allclose(logits, [[-0.958851, 1.0]], rtol=1e-5)


def test_cosface_by_hand():
    """64 (0.8 - 0.35) = 28.8 at the label, 64 * 0.5 = 32 elsewhere."""
    logits, _ = run(
        heads.cosface_logits, np.array([[0.5, 0.8]], np.float32), np.array([1], np.int32)
    )
    np.testing.assert_allclose(logits, [[32.0, 28.8]], rtol=1e-6)


def test_arcface_target_falls_with_the_angle_and_gradients_stay_finite():
    """Also beyond pi - margin, where the plain cosine would increase again, and at cosines of
    exactly -1 and 1.
    """
    cosines = np.linspace(-1, 1, 201).astype(np.float32)[:, None]
    logits, gradient = run(heads.arcface_logits, cosines, np.zeros(201, np.int32))
    assert np.all(np.diff(logits[:, 0]) > 0) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize('function', [heads.arcface_logits, heads.cosface_logits])
def test_gradients_equal_finite_differences(function):
    cosines, labels = random_cosines(3, batch=4)
    _, gradient = run(lambda c, y: function(c, y, 0.3, 2.0), cosines, labels)
    with tf.Graph().as_default(), tf.Session() as session:
        wide = tf.placeholder(tf.float64, cosines.shape)
        total = tf.reduce_sum(function(wide, tf.constant(labels), 0.3, 2.0))
        for i in range(4):
            for k in range(5):
                step = np.zeros_like(cosines, np.float64)
                step[i, k] = 1e-6
                plus, minus = (
                    session.run(total, {wide: cosines + sign * step}) for sign in (1, -1)
                )
                assert gradient[i, k] == pytest.approx((plus - minus) / 2e-6, rel=1e-4)


def test_cosine_classifier():
    """Embedding (3, 4) with weights (1, 0) and (0, 2): cosines 0.6 and 0.8, times 10. Lengths do
    not matter, and a zero embedding gives no NaN.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        kernel = tf.constant_initializer([[1.0, 0.0], [0.0, 2.0]])
        layer = heads.CosineClassifier(2, 10.0, kernel_initializer=kernel)
        logits = layer(tf.constant([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]))
        session.run(tf.global_variables_initializer())
        np.testing.assert_allclose(session.run(logits), [[6, 8], [6, 8], [0, 0]], rtol=1e-6)
        copy = heads.CosineClassifier.from_config(layer.get_config())
        assert (copy.units, copy.scale, copy.use_bias) == (2, 10.0, False)


def test_a_softmax_classifier():
    """Slope 0.25: (2, -4) becomes (2, -1); times (1, 0) and (3, 5): 2 and 1. Without a PReLU:
    2 and 6 - 20 = -14. The training reads the same logits.
    """
    found = {}
    for slope in (0.25, None):
        with tf.Graph().as_default(), tf.Session() as session:
            classifier = heads.Classifier(heads.head('softmax'), 2, 2, slope)
            logits = classifier.logits(tf.constant([[2.0, -4.0]]))
            assert classifier.training_logits(logits, None) is logits
            names = [variable.name for variable in classifier.weights]
            session.run(tf.global_variables_initializer())
            classifier.weights[-2].load(np.float32([[1, 3], [0, 5]]), session)
            found[slope] = names, session.run(logits).tolist()
    logits_names = ['logits/kernel:0', 'logits/bias:0']
    assert found == {
        0.25: (['prelu/alpha:0'] + logits_names, [[2.0, 1.0]]),
        None: (logits_names, [[2.0, -14.0]]),
    }


def test_a_margin_classifier():
    """cos = 0.8 and 0.6, times 10, at inference; 10 (0.8 - 0.35) at the label in training. Whatever
    the slope, the kernel is its only weight.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        classifier = heads.Classifier(heads.head('cosface', scale=10.0), 2, 2, slope=0.0)
        logits = classifier.logits(tf.constant([[4.0, 3.0]]))
        training = classifier.training_logits(logits, tf.constant([0]))
        (kernel,) = classifier.weights
        session.run(tf.global_variables_initializer())
        kernel.load(np.eye(2, dtype=np.float32), session)
        found = session.run([logits, training])
    assert kernel.name == 'logits/kernel:0'
    np.testing.assert_allclose(found, [[[8.0, 6.0]], [[4.5, 6.0]]], rtol=1e-6)


def test_weights_are_complete_at_once():
    """Calls create no further variable."""
    with tf.Graph().as_default():
        classifier = heads.Classifier(heads.head('softmax'), 2, 3, slope=0.25)
        found = [(v.name, v.shape.as_list()) for v in classifier.weights]
        classifier.logits(tf.zeros([5, 2]))
        classifier.logits(tf.zeros([4, 2]))
        assert len(tf.global_variables()) == 3
    assert found == [('prelu/alpha:0', [2]), ('logits/kernel:0', [2, 3]), ('logits/bias:0', [3])]


def test_settings():
    assert heads.head('arcface') == (heads.arcface_logits, 0.5, 64.0)
    assert heads.head('cosface', margin=0.2, scale=30.0) == (heads.cosface_logits, 0.2, 30.0)
    with pytest.raises(
        ValueError, match="head: expected one of arcface, cosface, softmax. Received: 'sphere'"
    ):
        heads.head('sphere')
    with pytest.raises(
        ValueError, match='margin: expected a number from 0 to pi / 2. Received: 2.0'
    ):
        heads.head('arcface', margin=2.0)
