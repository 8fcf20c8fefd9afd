"""Git loss: discriminative embeddings from softmax + center loss + git loss (arXiv 1807.08512).

`import gitloss` does not import TensorFlow: the submodules (`gitloss.losses`, `gitloss.model`,
`gitloss.data`, ...) are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = '0.1.0'
_SUBMODULES = ('backbones', 'backend', 'data', 'figures', 'heads', 'losses', 'metrics', 'model')


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module('gitloss.' + name)
    raise AttributeError(f"module 'gitloss' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES])
