"""Packages of the extra `export`, which only some formats need."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from gitloss.errors import check, reason

# Beside TensorFlow 1.15 its own interpreter reads TFLite files.
LITERT = () if sys.version_info < (3, 8) else ('ai_edge_litert',)


def require(thing: str, *modules: str) -> None:
    """ValueError with the command that installs them unless all modules are there."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    received = f'no {" and no ".join(missing)}; pip install ".[export]"'
    check(not missing, thing, f'{" and ".join(modules)} to be installed', received)


def imported(thing: str, module: str) -> Any:
    """A module.

    Raises:
      ValueError: it is not installed, or cannot be loaded.
    """
    require(thing, module.partition('.')[0])
    try:
        return importlib.import_module(module)
    except ImportError as error:
        check(False, thing, f'{module} to be loaded', reason(error))


def version(module: str) -> str | None:
    """The version of a package that this process has loaded; None: it has not."""
    return getattr(sys.modules.get(module), '__version__', None)
