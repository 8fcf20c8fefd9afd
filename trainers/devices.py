"""cpu, gpu or npu: which one, why, and the session configuration that goes with it."""
from __future__ import annotations

import collections
import importlib
import os

from gitloss.backend import tf

Device = collections.namedtuple('Device', 'name reason config')
Device.__doc__ = 'name: cpu, gpu or npu. reason: why this one. config: the tf.ConfigProto of its sessions.'


def _import_npu():
    """Imports the Ascend adapter. Only ever called for the NPU: the import itself redirects every later Session."""
    try:
        return importlib.import_module('npu_bridge.npu_init')
    except ImportError as error:
        raise ValueError('--device: expected npu_bridge of CANN to be importable for npu. Received: %s; is CANN installed and its '
                         'set_env.sh sourced?' % str(error).splitlines()[0])


def _npu_config(options):
    _import_npu()
    config = tf.ConfigProto(allow_soft_placement=True)
    optimizer = config.graph_options.rewrite_options.custom_optimizers.add()
    optimizer.name = 'NpuOptimizer'
    optimizer.parameter_map['use_off_line'].b = True
    optimizer.parameter_map['precision_mode'].s = tf.compat.as_bytes(options.precision_mode)
    off = 2  # RewriterConfig.OFF; both rewrites break the adapter's own
    config.graph_options.rewrite_options.remapping = off
    config.graph_options.rewrite_options.memory_optimization = off
    return config


def choose(options):
    """The Device of `options.device`.

    Raises:
      ValueError: the device asked for is not there.
    """
    wanted, reason = options.device, '--device=' + options.device
    if wanted == 'auto' and importlib.util.find_spec('npu_bridge') and os.environ.get('ASCEND_DEVICE_ID'):
        wanted, reason = 'npu', 'npu_bridge is installed and ASCEND_DEVICE_ID is set'
    if wanted == 'npu':
        return Device('npu', reason, _npu_config(options))
    if wanted in ('auto', 'gpu'):
        found = tf.config.experimental.list_physical_devices('GPU')
        if found:
            return Device('gpu', reason if wanted == 'gpu' else 'TensorFlow sees %d GPU' % len(found),
                          tf.ConfigProto(allow_soft_placement=True, gpu_options=tf.GPUOptions(allow_growth=True)))
        if wanted == 'gpu':
            raise ValueError('--device: expected a GPU that TensorFlow can use. Received: none is visible')
        reason = 'no NPU and no GPU found'
    # One operation at a time on all cores: measured fastest, and no two operations fight for the caches.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return Device('cpu', reason, tf.ConfigProto(device_count={'GPU': 0}, inter_op_parallelism_threads=1,
                                                intra_op_parallelism_threads=cores))
