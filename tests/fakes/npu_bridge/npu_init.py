"""npu_bridge.npu_init: importing it redirects every Session made afterwards."""

import json
import os

import tensorflow.compat.v1 as tf

from . import NpuRefuses

# Of the parameter_map, by field of the AttrValue. The real one ignores other keys, and reads a
# value in another field as 0.
_FIELDS = {
    'b': 'use_off_line mix_compile_mode enable_data_pre_proc hcom_parallel enable_dump '
    'enable_dump_debug profiling_mode',
    'i': 'iterations_per_loop graph_run_mode session_device_id local_rank_id deterministic '
    'hccl_timeout op_wait_timeout op_execute_timeout '
    'static_memory_policy',
    's': 'precision_mode precision_mode_v2 modify_mixlist customize_dtypes op_precision_mode '
    'dump_path dump_step dump_mode dump_debug_mode '
    'profiling_options aoe_mode work_path jit_compile op_compiler_cache_mode '
    'op_compiler_cache_dir fusion_switch_file debug_dir',
}
FIELD_OF = {key: field for field, keys in _FIELDS.items() for key in keys.split()}
_FORBIDDEN = (
    'Unique',
    'PyFunc',
    'EagerPyFunc',
    'QueueDequeue',
    'FIFOQueue',
    'RandomShuffleQueue',
    'PaddingFIFOQueue',
)
_HOST = ('Iterator', 'Save', 'Restore', 'Placeholder', 'MakeIterator')
_init, _run = tf.Session.__init__, tf.Session.run


def _record(**facts):
    path = os.environ.get('FAKE_NPU_RECORD')
    if path:
        with open(path, 'a') as file:
            file.write(json.dumps(facts) + '\n')


def _check_config(config):
    """The parameter_map of NpuOptimizer as {key: value}."""
    if config is None:
        raise NpuRefuses('a session without a ConfigProto: nothing is set for it')
    rewrites = config.graph_options.rewrite_options
    found = [
        optimizer for optimizer in rewrites.custom_optimizers if optimizer.name == 'NpuOptimizer'
    ]
    if len(found) != 1:
        raise NpuRefuses(f'expected one NpuOptimizer, received {len(found)}')
    if (rewrites.remapping, rewrites.memory_optimization) != (2, 2):
        raise NpuRefuses('remapping and memory_optimization must be OFF')
    values = {}
    for key, value in found[0].parameter_map.items():
        if key not in FIELD_OF:
            raise NpuRefuses(f'unknown key {key} (ignored in silence)')
        if value.WhichOneof('value') != FIELD_OF[key]:
            raise NpuRefuses(
                '{} in field {}, expected {} (reads as 0)'.format(
                    key, value.WhichOneof('value'), FIELD_OF[key]
                )
            )
        value = getattr(value, FIELD_OF[key])
        values[key] = value.decode() if isinstance(value, bytes) else value
    _check_values(values)
    return values


def _check_values(values):
    """The settings that contradict each other."""
    if 'precision_mode' in values and 'precision_mode_v2' in values:
        raise NpuRefuses('precision_mode and precision_mode_v2')
    if 'modify_mixlist' in values and 'mix' not in values.get(
        'precision_mode', values.get('precision_mode_v2', '')
    ):
        raise NpuRefuses('modify_mixlist without a mixed mode')
    if values.get('enable_dump') and values.get('enable_dump_debug'):
        raise NpuRefuses('enable_dump and enable_dump_debug')
    folder = values.get('dump_path', '')
    if (values.get('enable_dump') or values.get('enable_dump_debug')) and not (
        os.path.isdir(folder) and os.access(folder, os.W_OK)
    ):
        raise NpuRefuses('a dump without a dump_path that exists and can be written')
    if values.get('iterations_per_loop', 1) > 1 and (
        not values.get('enable_data_pre_proc') or values.get('mix_compile_mode')
    ):
        raise NpuRefuses('sinking needs enable_data_pre_proc, and no mix_compile_mode')


def _new_init(self, target='', graph=None, config=None):
    self._npu = _check_config(config)
    self._checked, self._initialised = set(), False
    _record(config=self._npu)
    plain = tf.ConfigProto()
    plain.CopyFrom(config)
    # No such optimizer is registered here.
    del plain.graph_options.rewrite_options.custom_optimizers[:]
    plain.device_count['GPU'] = 0
    # Collectives of the fake wait inside their operations: in threads of this session, and enough
    # of them for all that are ready.
    plain.use_per_session_threads, plain.inter_op_parallelism_threads = True, 32
    _init(self, target, graph, plain)


def _is_host(op):
    """Whether an operation is on the host or passes a value on from there: records of a file have
    no static shape before they are parsed.
    """
    return (
        op.type.startswith(_HOST)
        or op.type == 'Identity'
        and op.inputs[0].op.type.startswith('Restore')
    )


def _operations(fetches):
    """(operations on the card, operations on the host) that a run needs. What operations on the
    host need is on the host, too.
    """
    waiting = [
        fetch if isinstance(fetch, tf.Operation) else fetch.op
        for fetch in tf.nest.flatten(fetches)
        if isinstance(fetch, (tf.Operation, tf.Tensor)) or hasattr(fetch, 'op')
    ]
    card, host = set(), set()
    while waiting:
        op = waiting.pop()
        if op not in card and op not in host:
            (host if _is_host(op) else card).add(op)
            waiting.extend(
                list(op.control_inputs) + [tensor.op for tensor in op.inputs if op in card]
            )
    # The fake's own collectives are Python functions.
    return {op for op in card if not op.name.startswith('hccl/')}, host


def _check_graph(operations):
    for op in operations:
        if op.type.startswith(_FORBIDDEN):
            raise NpuRefuses(f'{op.name} of type {op.type} cannot run on the card')
    # TensorFlow folds operations on constants before the adapter sees it.
    left = [
        op
        for op in operations
        if op.type != 'BroadcastGradientArgs'
        or {tensor.op.type for tensor in op.inputs} != {'Const'}
    ]
    tensors = [
        tensor
        for op in left
        for tensor in op.outputs
        if tensor.dtype.base_dtype not in (tf.resource, tf.variant)
    ]
    for tensor in tensors:
        if tensor.dtype.base_dtype in (tf.float64, tf.complex64, tf.complex128):
            raise NpuRefuses(f'{tensor.name} is {tensor.dtype.name}')
    for tensor in tensors:
        # The sixth output of FusedBatchNormV3, a buffer without a shape in TensorFlow, has one in
        # CANN's BatchNorm, [1].
        is_buffer = tensor.op.type == 'FusedBatchNormV3' and tensor.value_index == 5
        if not is_buffer and not tensor.shape.is_fully_defined():
            raise NpuRefuses(f'{tensor.name} has the shape {tensor.shape}, not a static one')


def _new_run(self, fetches, feed_dict=None, options=None, run_metadata=None):
    if not self._initialised:
        self._initialised = True
        for variable in self.graph.get_collection('fake'):
            _run(self, variable.initializer)
    flat = tf.nest.flatten(fetches)
    names = sorted(getattr(fetch, 'name', str(fetch)) for fetch in flat)
    key = tuple(names)
    operations, host = _operations(fetches)
    kinds = {op.type for op in operations}
    training = any(
        op.type.startswith(('ResourceApply', 'Apply', 'If', 'Switch')) for op in operations
    )
    if key not in self._checked:
        self._checked.add(key)
        _check_graph(operations)
        if 'MakeIterator' in {op.type for op in host} and kinds & {'AssignVariableOp', 'Assign'}:
            raise NpuRefuses(
                'variable initialisers together with an iterator.initializer: the variables come '
                'out zero'
            )
    _record(run=names, training=training)
    loop = [
        fetch
        for fetch in flat
        if getattr(fetch, 'name', '').split('/')[-1].startswith('IterationOp')
    ]
    times = self._npu.get('iterations_per_loop', 1)
    if loop:
        _check_loop(self, loop, feed_dict, times)
        for _ in range(times - 1):
            _run(self, loop)
    elif times > 1 and training:
        raise NpuRefuses('a training step beside the IterationOp')
    return _run(self, fetches, feed_dict, options, run_metadata)


def _check_loop(session, loop, feed_dict, times):
    """What the adapter asks of a sunk loop of `times` steps."""
    if [op.name for op in loop] != ['IterationOp']:
        raise NpuRefuses(
            'expected one IterationOp at the root name scope, received %s'
            % [op.name for op in loop]
        )
    if feed_dict:
        raise NpuRefuses('a feed_dict in a sunk loop')
    if 'OneShotIterator' in {op.type for op in session.graph.get_operations()}:
        raise NpuRefuses('a one-shot iterator in a sunk loop')
    variable = session.graph.get_collection('npu_runconfig_iterations_per_loop')[0]
    if _run(session, variable) != times - 1:
        raise NpuRefuses(
            'iterations_per_loop was loaded as another number than the session was made with'
        )


tf.Session.__init__, tf.Session.run = _new_init, _new_run


def npu_config_proto(config_proto=None):
    """Adds NpuOptimizer if there is none. Only then memory_optimization is set too, as in the
    release that was examined.
    """
    config = config_proto if isinstance(config_proto, tf.ConfigProto) else tf.ConfigProto()
    rewrites = config.graph_options.rewrite_options
    if not any(optimizer.name == 'NpuOptimizer' for optimizer in rewrites.custom_optimizers):
        rewrites.custom_optimizers.add().name = 'NpuOptimizer'
        rewrites.memory_optimization = 2
    config.allow_soft_placement, rewrites.remapping = True, 2
    config.graph_options.optimizer_options.global_jit_level = -1
    return config


def init_resource(config=None):
    return tf.Session(config=npu_config_proto(config)), tf.no_op()


def shutdown_resource(sess, npu_shutdown):
    sess.run(npu_shutdown)


def close_session(sess):
    sess.close()
