"""The one place that imports TensorFlow.

`tf` is `tensorflow.compat.v1` and `keras` the graph-mode Keras that belongs to it, on TensorFlow
1.15 and on 2.x alike. Nothing
is switched off globally: the trainer works inside its own `tf.Graph`, so a TensorFlow 2 program may
import `gitloss` and stay eager.

Environment, read before the import and left alone when already set:
  TF_ENABLE_ONEDNN_OPTS=1   off by default on CPUs without AVX-512, where it is worth 1.7x
  TF_USE_LEGACY_KERAS=1     `tf.keras` is the Keras 2 of `tf_keras`, the one with a graph mode
  TF_CPP_MIN_LOG_LEVEL=3    device chatter off; GITLOSS_TF_LOGS=1 (the flag --tf_logs) leaves
  everything on
"""

import contextlib
import os
import sys
import tempfile
import warnings
from typing import Any


@contextlib.contextmanager
def _quiet_stderr():
    """Holds back what C++ code prints to file descriptor 2; gives it all out when the body raises.

    TF_CPP_MIN_LOG_LEVEL does not reach the messages that TensorFlow 2.x logs before its logger is
    initialised.
    """
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (AttributeError, OSError):  # no stderr at all: nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


def _load():
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
    os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
    if os.environ.get('GITLOSS_TF_LOGS') == '1':
        import tensorflow.compat.v1 as tensorflow

        return tensorflow
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    with _quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # NumPy and setuptools deprecations inside TensorFlow 1.15
        import tensorflow.compat.v1 as tensorflow
    tensorflow.logging.set_verbosity(tensorflow.logging.ERROR)
    return tensorflow


tf = _load()
if tf.__version__.startswith('1.'):
    keras = tf.keras
else:
    # not tf.keras: that is Keras 3 if TensorFlow was imported before this module
    import tf_keras as keras

Tensor = Any  # in annotations: a tf.Tensor, a variable, or what can be converted to a tensor

__all__ = ['Tensor', 'keras', 'tf']
