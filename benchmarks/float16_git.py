"""Trains with a git term whose gradient is computed in float16, as an NPU in mixed precision may.

    python benchmarks/float16_git.py --flagfile=flags/full.cfg --seed=1

Everything but the gradient of the git term stays in float32, so that a difference to
`trainers.run` with the same flags is the work of that gradient alone. Each operation of the
backward pass of 1 / (1 + d^2), for each pair and coordinate, is rounded to float16; the sum over
the pairs is taken in float32. Only "elementwise", in batches of constant size, without sharding.

For 128 samples in 2 dimensions the gradient starts from 1 / (128 x 128 x 2) = 3.1e-5, below the
smallest normal number of float16, 6.1e-5. Hardware that takes such numbers for 0 loses all of the
git term: there a run is one with --lambda_g=0. This program keeps them, as multiples of 6e-8.
"""

from __future__ import annotations

import sys
from typing import Any

import measuring  # noqa: F401  puts the project on the path

from gitloss import losses
from gitloss.backend import tf
from gitloss.gradients import custom_gradient
from trainers import run, streams

exact_term = losses.git_term


def half(values: Any) -> Any:
    """The values rounded to float16, as float32."""
    return tf.cast(tf.cast(values, tf.float16), tf.float32)


def gradient(x: Any, own_centers: Any, upstream: Any) -> Any:
    """Of the mean over i, j, k of 1 / (1 + d_ijk^2), by x: float32 [batch, dim]."""
    batch, dim = x.shape.as_list()
    difference = half(half(x)[:, None] - half(own_centers)[None]) * (
        1.0 - tf.eye(batch)[:, :, None]
    )
    inverse = half(1.0 / half(1.0 + half(difference * difference)))
    each = half(upstream / float(batch * batch * dim))
    by_square = half(half(-each * inverse) * inverse)
    return tf.reduce_sum(half(by_square * half(2.0 * difference)), axis=1)


def git_term(x: Any, labels: Any, own_centers: Any, *rest: Any, **settings: Any) -> Any:
    """`losses.git_term` with that gradient."""
    value = exact_term(x, labels, own_centers, *rest, **settings)

    @custom_gradient
    def value_of(points: Any) -> Any:
        return tf.identity(value), lambda upstream: gradient(points, own_centers, upstream)

    return value_of(x)


if __name__ == '__main__':
    losses.git_term = git_term
    streams.leave(run.main(sys.argv[1:]))
