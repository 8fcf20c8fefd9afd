"""Schedules of the learning rate.

The graph computes the factor from the global step. So a resumed run needs no further state, and the
factor is exact where several steps are one call (iteration sinking on an NPU).
"""

from __future__ import annotations

import math

from gitloss.backend import Tensor, tf
from gitloss.errors import check_choice


def factor(
    done: Tensor,
    schedule: str,
    steps: int,
    warmup_steps: int = 0,
    decay_steps: int = 0,
    decay_rate: float = 0.1,
) -> Tensor | float:
    """Factor on the learning rate in the step that follows `done` steps.

    constant: 1. step: decay_rate ** (done // decay_steps). cosine: (1 + cos(pi (done - warmup) /
    (steps - warmup))) / 2, from 1 at the end of the warm-up to 0 after `steps` (Loshchilov and
    Hutter, ICLR 2017, eq. 5, without restarts). In step n = done + 1 of the warm-up it is
    multiplied by n / warmup_steps (Goyal et al., 2017, section 2.2).

    Args:
      done: the global step, int64 scalar.

    Returns:
      float32 scalar, or 1.0.

    Raises:
      ValueError: an unknown schedule.
    """
    check_choice('schedule', schedule, ('constant', 'step', 'cosine'))
    value: Tensor = 1.0
    if schedule == 'step':
        value = tf.pow(decay_rate, tf.cast(done // decay_steps, tf.float32))
    elif schedule == 'cosine':
        part = tf.cast(tf.maximum(done - warmup_steps, 0), tf.float32) / float(steps - warmup_steps)
        value = 0.5 * (1.0 + tf.cos(math.pi * part))
    if warmup_steps:
        value *= tf.minimum(tf.cast(done + 1, tf.float32) / float(warmup_steps), 1.0)
    return value
