"""--callbacks=module:factory: a user's own callbacks."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from typing import Any, Callable, Iterable

from callbacks.base import Callback, as_callback
from gitloss.errors import describe
from trainers.options import Options


def _expected(what: str, entry: str, received: str) -> ValueError:
    return ValueError(f'--callbacks: expected {what}. Received: {entry}, {received}')


def _module(name: str) -> Any:
    if not name.endswith('.py'):
        if os.getcwd() not in sys.path and '' not in sys.path:
            sys.path.append(os.getcwd())
        return importlib.import_module(name)
    spec: Any = importlib.util.spec_from_file_location(
        'callbacks_of_' + os.path.basename(name)[: -len('.py')], name
    )
    # dataclasses look for their module in sys.modules
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _made(factory: Callable[..., Any], options: Options) -> Any:
    """factory(options) if it has a parameter without a default, or one called options; else
    factory().
    """
    parameters: Iterable[inspect.Parameter] = ()
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # written in C
        pass
    wants = any(
        one.name == 'options'
        or (
            one.default is one.empty
            and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        )
        for one in parameters
    )
    return factory(options) if wants else factory()


def load(entries: str, options: Options) -> list[Callback]:
    """The callbacks of `module:factory` or `file.py:factory`, comma-separated, in their order.

    A factory returns one callback or a list of them, of callbacks.base or of tf.keras.callbacks; a
    class is a factory too.

    Raises:
      ValueError: an entry cannot be imported, called, or returns something else.
    """
    found = []
    for entry in (part.strip() for part in entries.split(',') if part.strip()):
        name, colon, attribute = entry.rpartition(':')
        if not colon or not name or not attribute.isidentifier():
            raise ValueError(
                f'--callbacks: expected module:factory or file.py:factory. Received: {entry}'
            )
        try:
            module = _module(name)
        except Exception as error:  # noqa: BLE001 - whatever a user's module raises is told in a line
            raise _expected(
                'a module that can be imported', entry, 'which gives ' + describe(error)
            )
        factory = getattr(module, attribute, None)
        if not callable(factory):
            raise _expected(
                'a function or class of the module', entry, f'which has none called {attribute}'
            )
        try:
            made = _made(factory, options)
        except Exception as error:  # noqa: BLE001
            raise _expected('a factory that can be called', entry, 'which gives ' + describe(error))
        try:
            found += [
                as_callback(one) for one in (made if isinstance(made, (list, tuple)) else [made])
            ]
        except ValueError as error:
            raise _expected('a factory of callbacks', entry, f'which gives one refused: {error}')
    return found
