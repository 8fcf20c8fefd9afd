"""Layers that several networks share."""

from __future__ import annotations

from gitloss.backend import Tensor, keras


def prelu(x: Tensor, name: str) -> Tensor:
    """PReLU with one slope per channel, initially 0.25 (He et al., ICCV 2015)."""
    start = keras.initializers.Constant(0.25)
    return keras.layers.PReLU(alpha_initializer=start, shared_axes=[1, 2], name=name)(x)
