"""Layers that differ between training and inference: batch normalisation, dropout and, by its speed
alone, PReLU.

They compute inference unless they are called with `training=True` in a network that has a `Phase`.
The evaluation and the exported graph therefore contain no switch and no dropout.
"""

from gitloss.layers.adopt import adopt, refuse_foreign_modes
from gitloss.layers.dropout import Dropout
from gitloss.layers.normalization import BatchNormalization
from gitloss.layers.phase import Phase, PhaseLayer, decayed, enter
from gitloss.layers.prelu import PReLU

__all__ = [
    'BatchNormalization',
    'Dropout',
    'PReLU',
    'Phase',
    'PhaseLayer',
    'adopt',
    'decayed',
    'enter',
    'refuse_foreign_modes',
]
