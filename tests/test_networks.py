"""The networks for faces: output shapes and parameters of every stage, as in the papers.

The graphs are built and their variables counted; no network of the published size runs.
"""

import collections

import numpy as np
import pytest

from gitloss import model
from gitloss.backbones import iresnet
from gitloss.backend import tf
from gitloss.data.source import DataSpec


def build(name, size, dim, batch=None, **settings):
    return model.build(DataSpec('faces', (size, size, 3), 10), name, dim, batch, **settings)


def parameters(network):
    """{first part of the name: trainable parameters}."""
    counts = collections.Counter()
    for variable in network.trainable_weights:
        counts[variable.op.name.split('/')[0]] += int(np.prod(variable.shape.as_list()))
    return dict(counts)


def shapes(network, names):
    return [network.get_layer(name).output.shape.as_list()[1:] for name in names]


def test_mobilefacenet_is_table_1():
    """A convolution of k x k from i to o channels has k k i o weights (depthwise: k k o), its
    normalisation 2 o and its PReLU o. A bottleneck from i over e = t i to o channels has
    i e + 9 e + e o weights, 6 e for two normalisations and PReLUs, and 2 o:

        stem       27 64 + 3 64 = 1920, depthwise 9 64 + 3 64 = 768
        stage 1    5 (64 128 + 9 128 + 128 64 + 6 128 + 2 64) = 92160
        stage 2    64 256 + 9 256 + 256 128 + 6 256 + 2 128 = 53248
        stage 3    6 (128 256 + 9 256 + 256 128 + 6 256 + 2 128) = 417792
        stage 4    128 512 + 9 512 + 512 128 + 6 512 + 2 128 = 139008
        stage 5    2 / 6 of stage 3 = 139264
        last       128 512 + 3 512 = 67072, global depthwise 49 512 + 2 512 = 26112
        embeddings 512 128 = 65536, and their normalisation without gamma 128

    The paper's 0.99 M are those of inference, where gamma is folded into the weights: without the
    9664 gammas of the backbone there are 993,344.
    """
    with tf.Graph().as_default():
        network = build('mobilefacenet', 112, 128, embedding_norm=True)
        counts = parameters(network)
        stages = ['1/unit5/sum', '2/unit1/project/norm', '3/unit6/sum', '4/unit1/project/norm']
        ends = [f'stage{end}' for end in [*stages, '5/unit2/sum']]
        ends = ['stem/prelu', 'stem_depthwise/prelu', *ends, 'wide/prelu', 'global/norm']
        found = shapes(network, [*ends, 'embeddings'])
        gammas = [v for v in network.trainable_weights if v.op.name.endswith('gamma')]
        gammas = sum(v.shape.num_elements() for v in gammas)
    sides = [56, 56, 28, 14, 14, 7, 7, 7, 1]
    channels = [64, 64, 64, 128, 128, 128, 128, 512, 512]
    assert found == [*([n, n, c] for n, c in zip(sides, channels)), [128]]
    assert counts == {
        **{'stem': 1920, 'stem_depthwise': 768},
        'stage1': 92160,
        'stage2': 53248,
        'stage3': 417792,
        'stage4': 139008,
        'stage5': 139264,
        **{'wide': 67072, 'global': 26112},
        **{'embeddings': 65536, 'embedding_norm': 128},
    }
    assert sum(counts.values()) - gammas == 993344


def test_the_shortcuts_of_mobilefacenet_join_equal_shapes():
    """4 in stage 1, 6 in stage 3, 2 in stage 5: where neither stride nor channels change."""
    with tf.Graph().as_default():
        network = build('mobilefacenet', 32, 8)
        sums = [layer.name for layer in network.layers if layer.name.endswith('/sum')]
    assert collections.Counter(name.split('/')[0] for name in sums) == {
        'stage1': 4,
        'stage3': 6,
        'stage5': 2,
    }


# {depth: (parameters of the stages, published millions of parameters)}
IRESNETS = {
    18: ([152576, 526208, 2100992, 8396288], 24.03),
    34: ([226752, 1117824, 6826752, 13118464], 34.14),
    50: ([226752, 1117824, 16278272, 13118464], 43.59),
    100: ([226752, 3780096, 35181312, 13118464], 65.16),
}


@pytest.mark.parametrize('depth', sorted(IRESNETS))
def test_iresnets_have_the_published_parameters(depth):
    """A unit from i to o channels has weights 9 i o + 9 o o, normalisations 2 i + 2 o + 2 o and a
    PReLU o: u(i, o) = 9 i o + 9 o o + 2 i + 5 o. The first one of a stage has a shortcut of
    i o + 2 o.

        u(64, 64) = 74176, u(128, 128) = 295808, u(256, 256) = 1181440, u(512, 512) = 4722176
        first units: 78400, 230400, 919552, 3674112
        stage s = first unit + (units - 1) u, for example of 18: 78400 + 74176 = 152576
        stem 27 64 + 3 64 = 1920, last normalisation 2 512 = 1024, embeddings 7 7 512 512 = 12845056
        and their normalisation without gamma 512

    The published networks have 1024 more, which change no function: the bias of the dense layer
    before the normalisation of the embeddings, and the gamma of this, fixed at 1.
    """
    stages, published = IRESNETS[depth]
    with tf.Graph().as_default():
        network = build(f'iresnet{depth}', 112, 512, embedding_norm=True)
        counts = parameters(network)
        ends = [f'stage{s}/unit{n}/sum' for s, n in enumerate(iresnet.UNITS[depth], 1)]
        found = shapes(network, ['stem/prelu', *ends, 'norm', 'flatten', 'embeddings'])
    assert found == [
        [112, 112, 64],
        [56, 56, 64],
        [28, 28, 128],
        [14, 14, 256],
        [7, 7, 512],
        [7, 7, 512],
        [25088],
        [512],
    ]
    assert counts == {
        'stem': 1920,
        **{f'stage{number}': count for number, count in enumerate(stages, 1)},
        'norm': 1024,
        'embeddings': 12845056,
        'embedding_norm': 512,
    }
    assert round((sum(counts.values()) + 1024) / 1e6, 2) == published


def test_inception_resnet_v1_is_that_of_facenet():
    """160 -> 79 -> 77 -> 77 -> 38 -> 38 -> 36 -> 17, 8 and 3 pixels after the reductions. A
    convolution of a x b from i to o channels with normalisation without gamma has a b i o + o
    parameters, and so has the last one of a block, with bias:

        stem   896 + 9248 + 18496 + 5200 + 138432 + 442624 = 614896
        A      8224 + (8224 + 9248) + (8224 + 9248 + 9248) + 96 256 + 256 = 77248
        red. A 885120 + (49344 + 331968 + 442624) = 1709056
        B      114816 + (114816 + 114816 + 114816) + 256 896 + 896 = 689536
        red. B (229632 + 885120) + (229632 + 590080) + (229632 + 590080 + 590080) = 3344256
        C      344256 + (344256 + 110784 + 110784) + 384 1792 + 1792 = 1600000

    With 128 embeddings, 1792 128 + 128, this makes 22,779,312 parameters to train. The moving
    averages, 2 of every channel that is normalised, 14,416 channels, make the 22,808,144 that
    Keras reports for the known conversion of facenet's network.
    """
    with tf.Graph().as_default():
        network = build('inception_resnet_v1', 160, 128, embedding_norm=True)
        counts = parameters(network)
        stem = [f'stem/{number}/relu' for number in range(1, 7)]
        stem.insert(3, 'stem/pool')
        blocks = ['a5/relu', 'reduction_a/concat', 'b10/relu', 'reduction_b/concat', 'c5/relu']
        found = shapes(network, [*stem, *blocks, 'c_last/sum', 'pool'])
        averages = [v for v in network.non_trainable_weights if '/moving_' in v.op.name]
        averages = sum(v.shape.num_elements() for v in averages)
    sides = [79, 77, 77, 38, 38, 36, 17, 17, 8, 8, 3, 3, 3]
    channels = [32, 32, 64, 64, 80, 192, 256, 256, 896, 896, 1792, 1792, 1792]
    assert found == [*([n, n, c] for n, c in zip(sides, channels)), [1792]]
    assert counts == {
        'stem': 614896,
        **{f'a{number}': 77248 for number in range(1, 6)},
        'reduction_a': 1709056,
        **{f'b{number}': 689536 for number in range(1, 11)},
        'reduction_b': 3344256,
        **{f'c{number}': 1600000 for number in (1, 2, 3, 4, 5, '_last')},
        'embeddings': 229376,
        'embedding_norm': 128,
    }
    assert sum(counts.values()) == 22779312
    assert sum(counts.values()) + averages == 22808144
