"""--device and --precision on ordinary machines; those of the NPU are in test_npu_devices.py."""

import os

import numpy as np
import pytest

import toys
from gitloss import bfloat16, data
from gitloss.backend import tf
from helpers import Losses, relative_error
from trainers import checkpoints, devices, run
from trainers.devices import choice
from trainers.engine.embedding import embedder
from trainers.engine.trainer import Trainer
from trainers.options import Options

IS_1 = tf.__version__.startswith('1.')
NEWER = pytest.mark.skipif(IS_1, reason='TensorFlow 1.15 has no mixed precision on a CPU')
MIXED, RATE = '--precision=mixed', 'this processor multiplies bfloat16'


def _has_avx512():
    try:
        with open('/proc/cpuinfo') as file:
            return 'avx512f' in file.read()
    except OSError:
        return False


@NEWER
@pytest.mark.skipif(not _has_avx512(), reason='bfloat16 by oneDNN wants AVX-512 here')
def test_mixed_precision_trains_in_bfloat16(tmp_path):
    """bfloat16 has 8 bits of mantissa: losses agree with float32 to about 2^-8 per product, but are
    not equal.
    """
    curves = {}
    for precision in ('fp32', 'mixed'):
        settings = toys.options(
            tmp_path, exp_save_dir=str(tmp_path / precision), evaluate=False, precision=precision
        )
        device, watch = devices.choose(settings), Losses()
        assert device.mixed == (precision == 'mixed')
        Trainer(settings, data.load('mnist', settings.data_folder), [watch], device).fit()
        curves[precision] = np.array(watch.seen)
    assert (curves['mixed'] != curves['fp32']).all()
    np.testing.assert_allclose(curves['mixed'], curves['fp32'], rtol=0.02)


@NEWER
@pytest.mark.skipif(not _has_avx512(), reason='bfloat16 by oneDNN wants AVX-512 here')
def test_either_precision_embeds_with_the_checkpoint_of_the_other(tmp_path):
    """Variables are float32 in both; the embeddings differ by the roundings of the backbone."""
    settings = toys.options(tmp_path, precision='mixed', evaluate=False)
    assert run.train(settings) == 0
    pixels = np.random.RandomState(0).randint(0, 256, (16, 8, 8, 1)).astype(np.uint8)
    trained, found = checkpoints.find(settings.run_dir, '--ckpt_path'), []
    for precision in ('fp32', 'mixed'):
        device = devices.choose(Options(device='cpu', precision=precision))
        with embedder(trained, device, 16) as network:
            found.append(network.values(['embeddings'], pixels)[0])
    assert 0 < relative_error(found[1], found[0]) < 0.02


@NEWER
@pytest.mark.parametrize(
    'variable, problem',
    [
        ('TF_ENABLE_ONEDNN_OPTS=0', 'operations in float32 alone'),
        ('ONEDNN_MAX_CPU_ISA=AVX2', 'could not create a primitive'),
    ],
)
def test_a_cpu_that_cannot_is_told_before_the_training(tmp_path, variable, problem):
    """Without the check TensorFlow would silently train in float32 in one case, and fail at the
    first step in the other.
    """
    settings = toys.options(tmp_path, precision='mixed', model='mnist_cnn')
    name, value = variable.split('=')
    result = toys.started(toys.flags_of(settings), **{name: value})
    assert (result.returncode, result.stderr.count('\n')) == (2, 1), result.stderr
    assert result.stderr.startswith(
        'trainers.run: --precision: expected fp32 on this cpu, which does not compute a trial '
        'convolution in '
        'bfloat16. Received: mixed; '
    )
    assert problem in result.stderr or not _has_avx512()
    assert not os.path.exists(settings.run_dir)


@pytest.mark.parametrize(
    'name, mixed, speedup, lines',
    [
        ('cpu', False, 1.9, [f'{RATE} at 1.9 times the rate of float32: {MIXED} takes less time']),
        ('cpu', False, 1.1, []),
        ('cpu', False, 0.5, []),
        ('cpu', False, None, []),
        ('cpu', True, 1.9, []),
        ('cpu', True, 0.5, [f'warning: {MIXED}: {RATE} at 0.5 times the rate of float32']),
        ('cpu', True, None, [f'warning: {MIXED}: this processor has no instruction for bfloat16']),
        ('gpu', False, 1.9, []),
        ('npu', True, None, []),
    ],
)
def test_a_processor_for_another_precision_is_a_line(monkeypatch, name, mixed, speedup, lines):
    """speedup: the measured one; None: there is no instruction for it, and nothing is measured."""
    monkeypatch.setattr(bfloat16, 'in_hardware', lambda: speedup is not None)
    monkeypatch.setattr(bfloat16, 'speedup', lambda config: {'a config': speedup}[config])
    advice = devices.Device(name, '', 'a config', mixed).advice()
    assert advice == ([] if IS_1 else lines)


@pytest.mark.skipif(not IS_1, reason='of TensorFlow 1.15')
def test_tensorflow_1_has_no_mixed_precision_on_a_cpu():
    with pytest.raises(
        ValueError, match='--precision: expected fp32 on cpu with TensorFlow 1.15.*Received: mixed'
    ):
        devices.choose(Options(device='cpu', precision='mixed'))


@pytest.mark.parametrize('precision, scaled', [('fp32', False), ('mixed', True)])
def test_a_gpu_grows_its_memory_and_scales_the_loss_of_float16(monkeypatch, precision, scaled):
    """Without a GPU: checks the configuration of its session, and the optimizer."""
    tried = []
    monkeypatch.setattr(tf.config.experimental, 'list_physical_devices', lambda kind: ['a card'])
    monkeypatch.setattr(choice, 'check_mixed', lambda *arguments: tried.append(arguments))
    options = Options(precision=precision)
    device = devices.choose(options)
    assert (device.name, device.mixed) == ('gpu', scaled) and device.config.gpu_options.allow_growth
    assert device.config.graph_options.rewrite_options.auto_mixed_precision == int(scaled)
    assert [(name, kind.name) for name, _, kind in tried] == [('gpu', 'float16')] * scaled
    with tf.Graph().as_default():
        plain = tf.train.GradientDescentOptimizer(0.1)
        assert (devices.loss_scaled(plain, options, device) is not plain) == scaled


def test_a_gpu_that_is_not_there_is_one_line():
    if tf.config.experimental.list_physical_devices('GPU'):
        pytest.skip('there is one')
    with pytest.raises(
        ValueError,
        match='^--device: expected a GPU that TensorFlow can use. Received: none is visible$',
    ):
        devices.choose(Options(device='gpu'))
