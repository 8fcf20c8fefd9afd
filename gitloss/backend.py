"""The one place that imports TensorFlow.

`tf` is `tensorflow.compat.v1` and `keras` is its graph-mode Keras, on TensorFlow 1.15 and 2.x.
Nothing is switched off globally: the trainer works inside its own `tf.Graph`, so a TensorFlow 2
program can import `gitloss` and stay eager.

Environment variables, set before the import unless they are set already, or TensorFlow has been
imported:
  TF_ENABLE_ONEDNN_OPTS=1   1.7 times faster on CPUs without AVX-512, where it is off by default
  TF_USE_LEGACY_KERAS=1     `tf.keras` is Keras 2 (`tf_keras`), the one with a graph mode
  TF_CPP_MIN_LOG_LEVEL=3    no device messages; not set with GITLOSS_TF_LOGS=1 (flag --tf_logs)
"""

import os
import sys
import tempfile
import warnings
from typing import Any

from gitloss.quiet import quiet_stderr


def _name_temporary_folder() -> None:
    """TensorFlow needs the name of one when it is imported, also where none can be written, as in a
    container whose root is read-only.
    """
    try:
        tempfile.gettempdir()
    except OSError:
        tempfile.tempdir = os.environ.get('TMPDIR') or '/tmp'


def _load() -> Any:
    if sys.modules.get('tensorflow'):  # of a program that uses gitloss: its settings stay
        import tensorflow.compat.v1 as tensorflow

        return tensorflow
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')
    os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')
    _name_temporary_folder()
    if os.environ.get('GITLOSS_TF_LOGS') == '1':
        import tensorflow.compat.v1 as tensorflow

        return tensorflow
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # NumPy and setuptools deprecations inside TensorFlow 1.15
        import tensorflow.compat.v1 as tensorflow
    tensorflow.logging.set_verbosity(tensorflow.logging.ERROR)
    return tensorflow


tf = _load()
if not tf.__version__.startswith('1.'):
    # tf.keras is Keras 3 if TensorFlow was imported before this module.
    import tf_keras as keras
else:
    keras = tf.keras

Tensor = Any  # in annotations: a tf.Tensor, a variable, or a value that converts to a tensor

__all__ = ['Tensor', 'is_eager', 'keras', 'tf']


def is_eager() -> bool:
    """Whether this code, or the tf.function around it, is of a program in eager mode."""
    with tf.init_scope():
        return tf.executing_eagerly()
