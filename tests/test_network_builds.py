"""The networks for faces: other sizes of images, frozen stages, initial weights."""

import numpy as np
import pytest

import few_blocks
from gitloss import layers, model
from gitloss.backend import tf
from gitloss.data.source import DataSpec
from helpers import graph_session
from trainers.engine import freezing

# Sums of absolute kernels and slopes, seen on both TensorFlows.
SUMS_OF_SEED_1 = {'mobilefacenet': 64874.97163376957, 'applications:MobileNet': 109606.38126485515}


@pytest.mark.parametrize(
    'name, shape, layer, found',
    [
        ('mobilefacenet', (96, 64, 3), 'global/conv', (6, 4, 512, 1)),
        ('mobilefacenet', (17, 16, 1), 'global/conv', (2, 1, 512, 1)),
        ('iresnet18', (96, 64, 1), 'embeddings', (6 * 4 * 512, 8)),
        ('inception_resnet_v1', (75, 90, 1), 'embeddings', (1792, 8)),
    ],
)
def test_other_sizes_follow_from_the_last_feature_map(monkeypatch, name, shape, layer, found):
    """Four strides of 2 with padding: 96 x 64 pixels become 6 x 4, 17 x 16 become 2 x 1. Strides
    alone count, which a few blocks have as well.
    """
    few_blocks.install(monkeypatch.setattr)
    with tf.Graph().as_default():
        network = model.build(DataSpec('faces', shape, 10), name, 8)
        assert tuple(network.get_layer(layer).weights[0].shape.as_list()) == found


def test_stages_are_frozen_by_their_names():
    """Neither weights nor statistics of `stem` and `stage1` are trained; of the others all are."""
    with tf.Graph().as_default():
        network = model.build(DataSpec('faces', (16, 16, 3), 10), 'mobilefacenet', 8)
        all_names = {v.op.name for v in network.trainable_weights}
        left = {v.op.name for v in freezing.trainable(network, [], 'stem,stage1')}
        norms = [one for one in network.layers if isinstance(one, layers.BatchNormalization)]
    frozen = ('stem/', 'stem_depthwise/', 'stage1/')
    assert left == {name for name in all_names if not name.startswith(frozen)}
    assert [one.trainable for one in norms] == [not one.name.startswith(frozen) for one in norms]


@pytest.mark.parametrize('name', sorted(SUMS_OF_SEED_1))
def test_initial_weights_are_those_of_the_seed(name):
    """The pinned sum of all kernels is the same on TensorFlow 1.15 and 2.21."""
    with graph_session() as session:
        network = model.build(DataSpec('faces', (32, 32, 3), 10), name, 4, seed=1)
        session.run(tf.global_variables_initializer())
        kernels = session.run([v for v in network.trainable_weights if v.shape.rank > 1])
    total = float(sum(np.abs(kernel).sum(dtype=np.float64) for kernel in kernels))
    assert total == pytest.approx(SUMS_OF_SEED_1[name], rel=1e-7)
