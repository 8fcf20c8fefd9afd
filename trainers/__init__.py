"""The trainer and its commands."""

import signal as _signal
import sys as _sys

# Python is still looking for the module of `python -m`. Until the command has imported TensorFlow,
# Ctrl-C ends it at once and silently: a KeyboardInterrupt inside an import prints a traceback.
if _sys.argv[:1] == ['-m'] and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
