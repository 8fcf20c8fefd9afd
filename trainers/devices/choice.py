"""cpu, gpu or npu: which one, why, and what goes with it: the session's configuration, mixed
precision, loss scaling.
"""

from __future__ import annotations

import collections
import os

import numpy as np

from gitloss.backend import tf
from gitloss.errors import one_line, reason
from trainers.devices import npu, npu_options

Device = collections.namedtuple('Device', 'name reason config mixed')
Device.__doc__ = 'name: cpu, gpu or npu. reason: why this one. config: the tf.ConfigProto of its sessions. mixed: is its precision mixed?'


def _wanted(options):
    """(name, why). The adapter, whose import redirects every session, is imported only where an NPU
    is asked for or its variable set.
    """
    if options.device == 'npu':
        return 'npu', '--device=npu'
    card = next((name for name in ('ASCEND_DEVICE_ID', 'DEVICE_ID') if os.environ.get(name)), None)
    no_npu = ''
    if options.device == 'auto' and card:
        try:
            npu.adapter()
            return 'npu', f'the adapter of CANN is there and {card} is set'
        except ValueError as error:
            no_npu = '; no NPU: ' + str(error).partition('Received: ')[2]
    found = tf.config.experimental.list_physical_devices('GPU') if options.device != 'cpu' else []
    if found:
        return 'gpu', 'TensorFlow sees %d GPU' % len(found) + no_npu
    if options.device == 'gpu':
        raise ValueError(
            '--device: expected a GPU that TensorFlow can use. Received: none is visible'
        )
    if options.device == 'cpu':
        return 'cpu', '--device=cpu'
    return 'cpu', 'no GPU found' + no_npu if no_npu else 'no NPU and no GPU found'


def check_mixed(name, config, kind):
    """A convolution as a trial: where a rewrite cannot help TensorFlow leaves the graph as it is,
    in silence, or fails at the first step.

    Raises:
      ValueError: no operation of the trial computes in `kind`.
    """
    metadata, problem = tf.RunMetadata(), 'operations in float32 alone'
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        images, kernel = (
            tf.placeholder(tf.float32, shape) for shape in ([8, 8, 8, 16], [3, 3, 16, 16])
        )
        features = tf.nn.relu(tf.nn.conv2d(images, kernel, [1, 1, 1, 1], 'SAME'))
        feeds = {tensor: np.ones(tensor.shape.as_list(), np.float32) for tensor in (images, kernel)}
        try:
            session.run(
                tf.reduce_sum(features),
                feeds,
                tf.RunOptions(output_partition_graphs=True),
                metadata,
            )
            if any(
                node.attr['T'].type == kind.as_datatype_enum
                for graph in metadata.partition_graphs
                for node in graph.node
            ):
                return
        except tf.errors.OpError as error:
            problem = one_line(reason(error), 120)
    raise ValueError(
        f'--precision: expected fp32 on this {name}, which does not compute a trial convolution in {kind.name}. Received: mixed; {problem}'
    )


def choose(options):
    """The Device of `options.device`. ValueError: it is not there, or cannot do what is asked of
    it.
    """
    name, why = _wanted(options)
    if name == 'npu':
        values = npu_options.settings(options)
        npu.rank_environment()
        npu.adapter()
        mode = values.get('precision_mode') or values['precision_mode_v2']
        return Device(
            name,
            f'{why}; {mode}',
            npu.session_config(values),
            mode not in npu_options.FULL_PRECISION,
        )
    for flag, given in (
        ('npu_option', bool(options.npu_option)),
        ('iterations_per_loop', options.iterations_per_loop > 1),
    ):
        if given:
            raise ValueError(
                f'--{flag}: expected --device=npu, which alone has it. Received: device {name} ({why})'
            )
    mixed = options.precision == 'mixed'
    if name == 'gpu':
        config = tf.ConfigProto(
            allow_soft_placement=True, gpu_options=tf.GPUOptions(allow_growth=True)
        )
        rewrite = 'auto_mixed_precision'
    else:
        # One operation at a time on all cores: measured fastest, and no two operations fight for
        # the caches.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        config = tf.ConfigProto(
            device_count={'GPU': 0},
            inter_op_parallelism_threads=1,
            intra_op_parallelism_threads=cores,
        )
        rewrite = (
            'auto_mixed_precision_onednn_bfloat16'  # auto_mixed_precision does nothing on a CPU
        )
    if mixed:
        if not hasattr(config.graph_options.rewrite_options, rewrite):
            raise ValueError(
                f'--precision: expected fp32 on {name} with TensorFlow {tf.__version__}, which has no mixed precision there. Received: mixed'
            )
        # In the session's own configuration: enable_mixed_precision_graph_rewrite would set it for
        # the whole process.
        setattr(config.graph_options.rewrite_options, rewrite, 1)
        check_mixed(name, config, tf.float16 if name == 'gpu' else tf.bfloat16)
        why += '; ' + rewrite
    return Device(name, why, config, mixed)


def loss_scaled(optimizer, options, device):
    """The optimizer with the loss scaling of --loss_scale, or that of the device. Where it sees an
    overflow, weights and global step stay as they are."""
    # float16 needs it, bfloat16 has the range of float32; on the NPU the published training does
    # without.
    scale = options.loss_scale or ('dynamic' if device.mixed and device.name == 'gpu' else '')
    if not scale:
        return optimizer
    if device.name == 'npu':
        return npu.loss_scaled(optimizer, scale, is_distributed=npu.rank_environment()[1] > 1)
    return tf.train.experimental.MixedPrecisionLossScaleOptimizer(
        optimizer, scale if scale == 'dynamic' else float(scale)
    )
