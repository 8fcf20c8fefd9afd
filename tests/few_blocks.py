"""The networks for faces with one block of each kind, to save time."""

from gitloss.backbones import inception_resnet_v1, iresnet, mobilefacenet
from gitloss.backend import keras

BOTTLENECKS = ((2, 64, 2, 2), (4, 128, 1, 2), (2, 128, 1, 1), (4, 128, 1, 2))


def mobile_net(input_shape, **_):
    """What MobileNet is made of."""
    layers, images = keras.layers, keras.Input(input_shape)
    x = layers.Conv2D(8, 3, strides=2, padding='same', use_bias=False)(images)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding='same', use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Conv2D(16, 1, use_bias=False)(x)
    x = layers.Dropout(0.001)(layers.ReLU(6.0)(layers.BatchNormalization()(x)))
    return keras.Model(images, layers.GlobalAveragePooling2D()(x))


def install(put=setattr):
    """Makes the networks small, with all strides. MobileFaceNet keeps two shortcuts."""
    put(inception_resnet_v1, 'REPEATS', {'a': 1, 'b': 1, 'c': 1})
    put(iresnet, 'UNITS', {**iresnet.UNITS, 18: (1, 1, 1, 1)})
    put(mobilefacenet, 'BOTTLENECKS', BOTTLENECKS)
    put(keras.applications, 'MobileNet', mobile_net)
