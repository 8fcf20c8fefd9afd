"""Git loss: discriminative embeddings from softmax + center loss + git loss (arXiv 1807.08512).

`import gitloss` is cheap; the rooms (`gitloss.losses`, `gitloss.model`, `gitloss.data`, ...) are
imported on first use, so that nothing pays for TensorFlow before it needs it.
"""

import importlib

__version__ = '0.1.0'
_ROOMS = ('backbones', 'backend', 'data', 'figures', 'heads', 'losses', 'metrics', 'model')


def __getattr__(name):
    if name in _ROOMS:
        return importlib.import_module('gitloss.' + name)
    raise AttributeError(f"module 'gitloss' has no attribute {name!r}")


def __dir__():
    return sorted(list(globals()) + list(_ROOMS))
