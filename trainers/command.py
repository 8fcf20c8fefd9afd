"""What all commands share: flags to Options, the log, and one line for each mistake of the user."""

from __future__ import annotations

import gc
import logging
import os
import platform
import resource
import signal
import subprocess
import sys
import time
import warnings
from typing import Any, Callable, Sequence

from gitloss.errors import check, log, reason
from trainers import launch, streams
from trainers import options as options_module

STARTED = time.monotonic()  # start of the program
# (limit, its name in a shell, the least that will do, its unit, that in bytes or files). With less,
# TensorFlow aborts or hangs: on two cores the smallest training takes 3 GB of addresses and 0.6 GB
# of data, a worker more than 4 and 2 GB; more cores take more. Workers also open sockets.
_LIMITS = (
    (resource.RLIMIT_AS, 'ulimit -v', 8 << 20, 'KiB', 1024),
    (resource.RLIMIT_DATA, 'ulimit -d', 4 << 20, 'KiB', 1024),
    (resource.RLIMIT_NOFILE, 'ulimit -n', 64, 'open files', 1),
)


def versions() -> dict[str, Any]:
    """Interpreter, libraries and machine, and the commit if the project is a git checkout."""
    import numpy

    import gitloss
    from gitloss.backend import tf

    try:
        commit: str | None = subprocess.check_output(
            ['git', '-C', options_module.ROOT, 'rev-parse', 'HEAD'],
            stderr=subprocess.DEVNULL,
            timeout=5,
            universal_newlines=True,
        ).strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    return {
        'gitloss': gitloss.__version__,
        'python': platform.python_version(),
        'tensorflow': tf.__version__,
        'numpy': numpy.__version__,
        'machine': platform.machine(),
        'commit': commit,
    }


def _prepare_process() -> None:
    """What TensorFlow and all files need of the process.

    Raises:
      ValueError: a limit is too low, or there are no docstrings.
    """
    # TensorFlow edits docstrings while it is imported.
    check(sys.flags.optimize < 2, 'python', 'docstrings', '-OO or PYTHONOPTIMIZE=2')
    for limit, name, least, unit, size in _LIMITS:
        soft, _ = resource.getrlimit(limit)
        enough = soft == resource.RLIM_INFINITY or soft >= least * size
        check(enough, name, f'at least {least} {unit}', soft // size)
    # We must be able to read what we write, and enter the folders that we make.
    os.umask(os.umask(0o077) & 0o077)


def import_tensorflow() -> None:
    """The slow import. Its half a million objects live as long as the process: the garbage
    collector, which would visit them again and again, is off, and passes over them afterwards.
    """
    if 'gitloss.backend' in sys.modules:  # by now there may be garbage, which must not be kept
        return
    was_on = gc.isenabled()
    gc.disable()
    try:
        from gitloss import backend  # noqa: F401
    finally:
        if was_on:
            gc.enable()
    gc.freeze()


def main(
    arguments: Sequence[str] | None,
    command: str,
    doc: str,
    work: Callable[[options_module.Options], int],
    is_light: Callable[[options_module.Options], Any] = lambda options: False,
    words: list[str] | None = None,
) -> int:
    """Parses the flags and calls `work`.

    Args:
      arguments: the command line; None: that of the process.
      command: the module, as in `python -m`.
      doc: the docstring of the module, the first part of --help.
      work: options -> exit status.
      is_light: options -> whether `work` needs no TensorFlow, which takes seconds to import.
      words: the arguments that are no flags are appended to it; None: there may be none.

    Returns:
      The exit status: that of `work`; 2 for a mistake before the training, 1 for an error in it,
      128 + n for signal n.
    """
    given = sys.argv[1:] if arguments is None else arguments

    def parsed() -> int:
        try:
            options = options_module.parse(given, command, doc, words)
        except options_module.HelpRequested as text:
            streams.output(str(text))
            return 0
        except ValueError as error:
            streams.say(f'{command}: {error}')
            return 2
        return _run(options, command, work, is_light(options))

    return streams.guarded(command, parsed)


def _run(
    options: options_module.Options,
    command: str,
    work: Callable[[options_module.Options], int],
    is_light: Any,
) -> int:
    if options.tf_logs:
        os.environ['GITLOSS_TF_LOGS'] = '1'
    elif not sys.warnoptions:
        # What NumPy and Matplotlib say to developers: what a user must know, we say in a line.
        warnings.simplefilter('ignore')
        logging.getLogger('matplotlib').setLevel(logging.ERROR)
    launch.follow()
    # Without a traceback for every line of the log file on a full disk.
    logging.raiseExceptions = False
    log.setLevel(logging.INFO)
    log.propagate = False
    return _status(options, command, work, is_light)


def _status(
    options: options_module.Options,
    command: str,
    work: Callable[[options_module.Options], int],
    is_light: Any,
) -> int:
    try:
        _prepare_process()
        from callbacks.progress import ConsoleHandler

        log.handlers = [ConsoleHandler()]
        if not is_light:
            import_tensorflow()
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see trainers/__init__.py
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return work(options)
    # ImportError: a library that cannot be loaded, for example for want of memory.
    except (
        ValueError,
        OSError,
        RuntimeError,
        ArithmeticError,
        MemoryError,
        ImportError,
    ) as error:
        if options.tf_logs:
            raise
        log.error('%s: %s', command, reason(error))
        return 2 if isinstance(error, (ValueError, OSError)) else 1
    except KeyboardInterrupt as error:  # Interrupted is one, with the name of its signal
        log.error('%s: %s', command, str(error) or 'stopped by SIGINT')
        return 128 + getattr(error, 'signum', signal.SIGINT)
