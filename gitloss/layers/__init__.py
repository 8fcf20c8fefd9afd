"""Layers that behave differently in training: batch normalisation and dropout for graph mode.

A layer here computes inference unless it is called with `training=True` inside a network that was
given a `Phase`. So the evaluation and the exported graph hold no phase, no conditional, no dropout.
"""

from gitloss.layers.adopt import adopt, refuse_foreign_modes
from gitloss.layers.dropout import Dropout
from gitloss.layers.normalization import BatchNormalization
from gitloss.layers.phase import Phase, PhaseLayer, decayed, enter

__all__ = [
    'BatchNormalization',
    'Dropout',
    'Phase',
    'PhaseLayer',
    'adopt',
    'decayed',
    'enter',
    'refuse_foreign_modes',
]
