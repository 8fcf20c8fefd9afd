"""--callbacks=module:factory: a user's own callbacks."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from typing import Any, Callable

from callbacks.base import Callback, as_callback
from gitloss import files
from gitloss.errors import describe
from trainers.options import Options


def _wrong(expected: str, entry: str, received: str) -> ValueError:
    return ValueError(f'--callbacks: expected {expected}. Received: {entry}, {received}')


def _module(name: str) -> Any:
    """Imports a module, or a file NAME.py."""
    if not name.endswith('.py'):
        if os.getcwd() not in sys.path and '' not in sys.path:
            sys.path.append(os.getcwd())
        return importlib.import_module(name)
    if os.path.exists(name):
        files.open_regular(name, os.O_RDONLY, 'rb').close()  # a FIFO would be waited for
    spec: Any = importlib.util.spec_from_file_location(
        'callbacks_of_' + os.path.basename(name)[: -len('.py')], name
    )
    # In sys.modules dataclasses look for the module of a class.
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _made(factory: Callable[..., Any], options: Options) -> Any:
    """factory(options) if it has a parameter without a default, or one named options; else
    factory().
    """
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except ValueError:  # written in C
        parameters = []
    wants_options = any(
        one.name == 'options'
        or (
            one.default is one.empty
            and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        )
        for one in parameters
    )
    return factory(options) if wants_options else factory()


def load(entries: str, options: Options) -> list[Callback]:
    """The callbacks of comma-separated entries, `module:factory` or `file.py:factory`, in order.

    A factory returns one callback or a list of them, of gitloss or of tf.keras.callbacks; a class
    is a factory too.

    Raises:
      ValueError: an entry cannot be imported or called, or returns something else.
    """
    callbacks: list[Callback] = []
    for entry in (part.strip() for part in entries.split(',') if part.strip()):
        name, _, attribute = entry.rpartition(':')
        if not name or not attribute.isidentifier():
            raise ValueError(
                f'--callbacks: expected module:factory or file.py:factory. Received: {entry}'
            )
        expected = 'a module that can be imported'
        try:
            factory = getattr(_module(name), attribute, None)
            if callable(factory):
                expected = 'a factory that can be called'
                made = _made(factory, options)
        # Whatever the user's code raises becomes one line.
        except Exception as error:  # noqa: BLE001
            raise _wrong(expected, entry, 'which gives ' + describe(error))
        if not callable(factory):
            raise _wrong(
                'a function or class of the module', entry, f'which has none called {attribute}'
            )
        try:
            callbacks += map(as_callback, made if isinstance(made, (list, tuple)) else [made])
        except ValueError as error:
            raise _wrong('a factory of callbacks', entry, f'which gives one refused: {error}')
    return callbacks
