"""gitloss.bfloat16: gradients, types of a network, the processor. A training: test_devices.py."""

import numpy as np
import pytest

from gitloss import bfloat16, data
from gitloss import model as models
from gitloss.backend import keras, tf
from gitloss.gradients import sum_of_rows
from helpers import graph_session, relative_error

NEWER = pytest.mark.skipif(
    tf.__version__.startswith('1.'), reason='TensorFlow 1.15 has no bfloat16 on a CPU'
)


def rounded(values, dtype):
    """float32 values as a tensor without digits that bfloat16 has not."""
    return tf.cast(tf.cast(tf.constant(values.astype(np.float32)), tf.bfloat16), dtype)


def conv(x, kernel=3, stride=1, padding='SAME', height=None):
    shape = [height or kernel, kernel, x.shape[-1], 5]
    weights = rounded(np.random.RandomState(1).randn(*shape), x.dtype)
    return tf.nn.conv2d(x, weights, [1, stride, stride, 1], padding), weights


def depthwise(x, kernel=3, stride=1, padding='SAME', multiplier=1):
    shape = [kernel, kernel, x.shape[-1], multiplier]
    weights = rounded(np.random.RandomState(1).randn(*shape), x.dtype)
    return tf.nn.depthwise_conv2d(x, weights, [1, stride, stride, 1], padding), weights


def bias(x):
    weights = tf.cast(tf.constant([0.5, -1.0, 2.0, 0.0]), x.dtype)
    return tf.nn.bias_add(x, weights), weights


CASES = {
    'conv': conv,
    'large images': lambda x: conv(tf.tile(x, [1, 3, 3, 1])),
    '1x1': lambda x: conv(x, 1),
    '1x3': lambda x: conv(x, 3, height=1),
    'even kernel': lambda x: conv(x, 2),
    'conv, stride 2': lambda x: conv(x, 3, 2),
    'conv, VALID': lambda x: conv(x, 3, 1, 'VALID'),
    'depthwise': depthwise,
    'depthwise, 5x5': lambda x: depthwise(x, 5),
    'depthwise, stride 2': lambda x: depthwise(x, 3, 2),
    'depthwise, VALID': lambda x: depthwise(x, 5, 1, 'VALID'),
    'depthwise, two outputs a channel': lambda x: depthwise(x, multiplier=2),
    'bias': bias,
    'relu': lambda x: (tf.nn.relu(x), x),
    'relu6': lambda x: (tf.nn.relu6(8.0 * x), x),
}


def gradients(case, dtype, overrides):
    """[gradient by the input, gradient by the weights], float32, and their types."""
    random = np.random.RandomState(0)
    with graph_session() as session:
        x = random.randn(6, 5, 7, 4)
        x[0, 0] = 0.0  # where the gradient of ReLU is 0
        x = rounded(x, dtype)
        with tf.get_default_graph().gradient_override_map(overrides):
            y, weights = CASES[case](x)
        upstream = rounded(random.randn(*y.shape.as_list()), dtype)
        found = tf.gradients(y, [x, weights], upstream)
        kinds = [one.dtype for one in found]
        return session.run([tf.cast(one, tf.float32) for one in found]), kinds


@pytest.mark.parametrize('case', sorted(CASES))
def test_the_gradients_are_tensorflows_own(case):
    """In float32, where both sum the same products in another order: to 2e-6 of the largest
    entry.
    """
    theirs, _ = gradients(case, tf.float32, {})
    ours, _ = gradients(case, tf.float32, bfloat16.OVERRIDES)
    for mine, own in zip(ours, theirs):
        assert relative_error(mine, own) < 2e-6


@NEWER
@pytest.mark.parametrize('case', sorted(CASES))
def test_in_bfloat16_they_are_as_exact_as_tensorflows_own(case):
    """Against float32, from inputs that bfloat16 has exactly. A result is rounded by 2^-9 = 0.002,
    twice that if its sums are computed in another layout; small sums are coarser in TensorFlow.
    """
    wide, _ = gradients(case, tf.float32, {})
    theirs, _ = gradients(case, tf.bfloat16, {})
    ours, kinds = gradients(case, tf.bfloat16, bfloat16.OVERRIDES)
    assert kinds == [tf.bfloat16, tf.bfloat16]
    for mine, own, exact in zip(ours, theirs, wide):
        bound = max(0.004, relative_error(own, exact))
        assert relative_error(mine, exact) <= bound


@NEWER
def test_sums_do_not_stop_growing():
    """100352 = 49 * 2^11 ones: exact in bfloat16, whose own sums end at 256, where 1 is half of the
    last bit.
    """
    with graph_session() as session:
        ones = tf.ones([100352, 3], tf.bfloat16)
        assert session.run(tf.cast(sum_of_rows(ones), tf.float32)).tolist() == [100352] * 3


def network(dtype, backbone='mobilefacenet', **settings):
    spec = data.DataSpec('random', (16, 16, 3), 10, data.CENTERED)
    return models.build(spec, backbone, 4, 2, dtype=dtype, **settings)


@NEWER
@pytest.mark.parametrize(
    'backbone, size', [('mobilefacenet', 16), ('iresnet18', 16), ('inception_resnet_v1', 75)]
)
def test_the_backbone_computes_in_bfloat16_and_nothing_else(backbone, size):
    """Convolutions and normalisation of the backbone are in bfloat16; variables, preprocessing,
    the embedding layer and what follows are in float32.
    """
    with tf.Graph().as_default() as graph:
        spec = data.DataSpec('random', (size, size, 3), 10, data.CENTERED)
        net = models.build(spec, backbone, 4, 2, dtype='bfloat16', embedding_norm=True)
        assert keras.mixed_precision.global_policy().name == 'float32'
        assert {weight.dtype.base_dtype for weight in net.weights} == {tf.float32}
        assert net.output.dtype == tf.float32
        kinds = {}
        for op in graph.get_operations():
            if op.type in ('Conv2D', 'DepthwiseConv2dNative', 'MatMul'):
                kinds.setdefault(op.type, set()).add(op.get_attr('T'))
        assert kinds.pop('MatMul') == {tf.float32}
        assert set(map(tuple, kinds.values())) == {(tf.bfloat16,)}


@NEWER
def test_its_embeddings_and_variables_are_those_of_float32():
    """Each of some 50 layers rounds by 2^-9; the errors add up like a random walk."""
    found = []
    pixels = np.random.RandomState(0).randint(0, 256, (2, 16, 16, 3)).astype(np.float32)
    for dtype in ('float32', 'bfloat16'):
        with graph_session() as session:
            net = network(dtype)
            session.run(tf.global_variables_initializer())
            embeddings, weights = session.run([net.output, list(net.weights)], {net.input: pixels})
            found.append((embeddings, [(w.name, v) for w, v in zip(net.weights, weights)]))
    (wide, weights), (narrow, others) = found
    assert 0 < relative_error(narrow, wide) < 0.1
    for (name, value), (other, equal) in zip(weights, others):
        assert name == other and (value == equal).all()


@NEWER
def test_a_network_that_fails_leaves_the_types_of_layers_as_they_were():
    with tf.Graph().as_default(), pytest.raises(ZeroDivisionError):
        with bfloat16.computing('bfloat16'):
            assert keras.layers.Dense(1).compute_dtype == 'bfloat16'
            raise ZeroDivisionError
    assert keras.layers.Dense(1).compute_dtype == 'float32'


@pytest.mark.parametrize(
    'lines, has_it',
    [
        ('flags\t\t: fpu sse avx512f avx512_bf16 fma\n', True),
        ('processor: 0\nflags: fpu amx_bf16\n', True),
        ('Features\t: fp asimd bf16 i8mm\n', True),
        ('flags: fpu avx512f\nmodel name: avx512_bf16\n', False),
        ('', False),
    ],
)
def test_the_processor_is_asked_for_bfloat16(tmp_path, lines, has_it):
    """As Linux describes x86 and ARM; elsewhere there is no such file."""
    path = tmp_path / 'cpuinfo'
    assert bfloat16.in_hardware(str(path)) is False
    path.write_text(lines)
    assert bfloat16.in_hardware(str(path)) is has_it


@NEWER
def test_the_products_in_both_precisions_are_timed(monkeypatch):
    """By a clock that goes on by 4 s a call of a product in float32 and by 2 s in bfloat16."""
    readings = iter(np.cumsum([0, 4, 0, 2] * 6).tolist())
    monkeypatch.setattr(bfloat16.time, 'perf_counter', lambda: next(readings))
    assert bfloat16.speedup(tf.ConfigProto(), size=8) == 2.0
    assert next(readings, None) is None
