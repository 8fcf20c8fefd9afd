"""Functions that XLA compiles for a CPU."""

from __future__ import annotations

from typing import Any, Callable

from gitloss.backend import tf

# TensorFlow 1.15 does not compile functions in a graph for a CPU.
COMPILES = not tf.__version__.startswith('1.')


def compiled(function: Callable) -> Any:
    """A tf.function of `function`, compiled by XLA where `COMPILES`."""
    return tf.function(function, autograph=False, **({'jit_compile': True} if COMPILES else {}))
