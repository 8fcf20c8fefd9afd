"""The choice of the device, cpu, gpu or npu, and what depends on it: the configuration of the
session, mixed precision, loss scaling.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from gitloss import bfloat16
from gitloss.backend import tf
from gitloss.errors import check, one_line, reason
from trainers.devices import npu, npu_options
from trainers.options import FIELDS, Options

# The ratio of rates from which mixed precision gains on a CPU: what stays in float32, and the
# conversions, cost a part of it.
WORTHWHILE = 1.3


class Device(NamedTuple):
    """The device of a run.

    Attributes:
      name: cpu, gpu or npu.
      reason: why this one.
      config: the tf.ConfigProto of its sessions.
      mixed: whether it trains in mixed precision.
    """

    name: str
    reason: str
    config: Any
    mixed: bool

    @property
    def network_dtype(self) -> str:
        """The type in which the layers of the backbone are built to compute: bfloat16 on a CPU in
        mixed precision. On GPU and NPU the session rewrites a graph in float32.
        """
        return 'bfloat16' if self.mixed and self.name == 'cpu' else 'float32'

    def advice(self) -> list[str]:
        """Lines for a user whose processor suits another --precision."""
        if self.name != 'cpu' or tf.__version__.startswith('1.'):
            return []
        if not bfloat16.in_hardware():
            lacks = 'warning: --precision=mixed: this processor has no instruction for bfloat16'
            return [lacks] if self.mixed else []
        speedup = bfloat16.speedup(self.config)
        rate = f'this processor multiplies bfloat16 at {speedup:.1f} times the rate of float32'
        if self.mixed and speedup < 1.0:
            return ['warning: --precision=mixed: ' + rate]
        if not self.mixed and speedup >= WORTHWHILE:
            return [rate + ': --precision=mixed takes less time']
        return []


# {device: (switch of the graph rewrite for mixed precision, its type)}. The switch
# auto_mixed_precision does nothing on a CPU, where the rewrite serves the trial alone.
_MIXED = {
    'gpu': ('auto_mixed_precision', tf.float16),
    'cpu': ('auto_mixed_precision_onednn_bfloat16', tf.bfloat16),
}


def _wanted(options: Options) -> tuple[str, str]:
    """(name, reason). The import of the adapter redirects every session: it is tried only if an NPU
    is asked for or its environment variable is set.
    """
    if options.device in ('npu', 'cpu'):
        return options.device, f'--device={options.device}'
    card = next((name for name in ('ASCEND_DEVICE_ID', 'DEVICE_ID') if os.environ.get(name)), None)
    no_npu = ''
    if options.device == 'auto' and card:
        try:
            npu.adapter()
            return 'npu', f'the adapter of CANN is there and {card} is set'
        except ValueError as error:
            no_npu = '; no NPU: ' + str(error).partition('Received: ')[2]
    found = tf.config.experimental.list_physical_devices('GPU')
    if found:
        return 'gpu', f'TensorFlow sees {len(found)} GPU{no_npu}'
    if options.device == 'gpu':
        raise ValueError(
            '--device: expected a GPU that TensorFlow can use. Received: none is visible'
        )
    return 'cpu', 'no GPU found' + no_npu if no_npu else 'no NPU and no GPU found'


def check_mixed(name: str, config: Any, kind: Any) -> None:
    """Runs a trial convolution: where the rewrite for mixed precision has no effect, TensorFlow
    says nothing, or fails at the first step.

    Raises:
      ValueError: no operation of the trial computes in `kind`.
    """
    metadata, problem = tf.RunMetadata(), 'operations in float32 alone'
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        images = tf.placeholder(tf.float32, [8, 8, 8, 16])
        kernel = tf.placeholder(tf.float32, [3, 3, 16, 16])
        features = tf.nn.relu(tf.nn.conv2d(images, kernel, [1, 1, 1, 1], 'SAME'))
        feeds = {tensor: np.ones(tensor.shape.as_list(), np.float32) for tensor in (images, kernel)}
        try:
            session.run(
                tf.reduce_sum(features),
                feeds,
                tf.RunOptions(output_partition_graphs=True),
                metadata,
            )
        except tf.errors.OpError as error:
            problem = one_line(reason(error), 120)
    if not any(
        node.attr['T'].type == kind.as_datatype_enum
        for graph in metadata.partition_graphs
        for node in graph.node
    ):
        raise ValueError(
            f'--precision: expected fp32 on this {name}, which does not compute a trial '
            f'convolution in {kind.name}. Received: mixed; {problem}'
        )


def _config(name: str) -> Any:
    if name == 'gpu':
        return tf.ConfigProto(
            allow_soft_placement=True, gpu_options=tf.GPUOptions(allow_growth=True)
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    # One operation at a time, on all cores: the fastest setting measured, because operations then
    # do not compete for the caches. -1: on the thread of the caller, as waking another one takes
    # 0.05 to 0.1 ms.
    return tf.ConfigProto(
        device_count={'GPU': 0}, inter_op_parallelism_threads=-1, intra_op_parallelism_threads=cores
    )


def _npu_settings(options: Options) -> Any:
    sample = options.sample_classes
    expected = '1 on an NPU, which needs the number of classes of a step before it'
    check(sample == 1.0, '--sample_classes', expected, f'{sample:g}')
    return npu_options.settings(options)


def choose(options: Options) -> Device:
    """The Device of `options.device`.

    Raises:
      ValueError: it is missing, or lacks what the options ask for.
    """
    name, why = _wanted(options)
    if name == 'npu':
        values = _npu_settings(options)
        npu.rank_environment()
        npu.adapter()
        mode = values.get('precision_mode') or values['precision_mode_v2']
        is_mixed = mode not in npu_options.FULL_PRECISION
        return Device(name, f'{why}; {mode}', npu.session_config(values), is_mixed)
    for flag in ('npu_option', 'iterations_per_loop'):
        if getattr(options, flag) != FIELDS[flag].default:
            raise ValueError(
                f'--{flag}: expected --device=npu, which alone has it. '
                f'Received: device {name} ({why})'
            )
    config, mixed = _config(name), options.precision == 'mixed'
    if mixed:
        switch, kind = _MIXED[name]
        # In the session: enable_mixed_precision_graph_rewrite would set it for the whole process.
        rewrites = config.graph_options.rewrite_options
        if not hasattr(rewrites, switch):
            raise ValueError(
                f'--precision: expected fp32 on {name} with TensorFlow {tf.__version__}, which has '
                'no mixed precision there. Received: mixed'
            )
        setattr(rewrites, switch, 1)
        check_mixed(name, config, kind)
        why += '; ' + kind.name
        if name == 'cpu':  # the network itself is built in bfloat16, see `network_dtype`
            rewrites.ClearField(switch)
    return Device(name, why, config, mixed)


def loss_scaled(optimizer: Any, options: Options, device: Device) -> Any:
    """The optimizer with the loss scaling of --loss_scale, or of the device.

    After an overflow it leaves the weights and the global step as they are.
    """
    # float16 needs loss scaling; bfloat16 has the range of float32. The published training on the
    # NPU uses none.
    scale = options.loss_scale or ('dynamic' if device.mixed and device.name == 'gpu' else '')
    if not scale:
        return optimizer
    if device.name == 'npu':
        return npu.loss_scaled(optimizer, scale, is_distributed=npu.rank_environment()[1] > 1)
    return tf.train.experimental.MixedPrecisionLossScaleOptimizer(
        optimizer, scale if scale == 'dynamic' else float(scale)
    )
