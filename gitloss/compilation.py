"""Functions that XLA compiles for a CPU."""

from __future__ import annotations

import functools
from typing import Any, Callable

from gitloss.backend import Tensor, tf

# TensorFlow 1.15 does not compile functions in a graph for a CPU.
COMPILES = not tf.__version__.startswith('1.')


def is_compiled_for(tensor: Tensor) -> bool:
    """Whether work on `tensor` may be compiled: on a CPU, and for a static shape, because XLA
    compiles once for each.
    """
    if not COMPILES or not tensor.shape.is_fully_defined():
        return False
    return not tf.config.experimental.list_physical_devices('GPU')


def compiled(function: Callable) -> Callable:
    """A tf.function of `function`, of tensors, compiled by XLA where `COMPILES`; no gradient flows
    through it.

    A tf.function keeps every graph that it was used in. So each graph has one of its own.
    """
    settings = {'jit_compile': True} if COMPILES else {}
    make = functools.partial(tf.function, function, autograph=False, **settings)
    eager = make()

    @functools.wraps(function)
    def wrapped(*tensors: Tensor) -> Any:
        tensors = tuple(map(tf.stop_gradient, tensors))  # else tapes would trace a gradient
        if tf.executing_eagerly():
            return eager(*tensors)
        graph = tf.get_default_graph()
        if not hasattr(graph, 'gitloss_compiled'):
            graph.gitloss_compiled = {}
        if function not in graph.gitloss_compiled:
            graph.gitloss_compiled[function] = make()
        return graph.gitloss_compiled[function](*tensors)

    return wrapped
