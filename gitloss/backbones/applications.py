"""The networks of tf.keras.applications, without their last layers and pretrained weights.

Their batch normalisation and dropout become those of `gitloss.layers`. Which networks there are
depends on the version of TensorFlow.
"""

from __future__ import annotations

from typing import Callable

from gitloss.backend import Tensor, keras
from gitloss.errors import check, check_choice, reason
from gitloss.layers import adopt

PREFIX = 'applications:'


def names() -> list[str]:
    """The names of the networks, in order."""
    return sorted(name for name in dir(keras.applications) if name[0].isupper())


def network(name: str, flag: str) -> Callable:
    """The backbone's function of the network `name`: the features after its last global average
    pool.

    Raises:
      ValueError: there is no such network; the function raises it for images that the network does
        not take.
    """
    build = getattr(keras.applications, check_choice(f'{flag}={PREFIX}NAME', name, names()))

    def features(images: Tensor, initializer: Callable) -> Tensor:
        shape = tuple(images.shape.as_list()[1:])
        expected = f'a shape (height, width, channels) that {name} takes, 1 or 3 channels'
        check(shape[2] in (1, 3), 'image_shape', expected, repr(shape))
        settings = {'include_top': False, 'weights': None, 'pooling': 'avg', 'input_shape': shape}
        try:
            return adopt(lambda: build(**settings), images, lambda: initializer().seed)
        except ValueError as error:
            raise ValueError(
                f'image_shape: expected {expected}. Received: {shape}; {reason(error)}'
            )

    return features
