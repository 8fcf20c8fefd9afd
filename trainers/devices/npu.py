"""The Ascend NPU: its session, its loss scaling, iteration sinking and HCCL. The only module that
imports the adapter.

The adapter is `npu_bridge` on TensorFlow 1.15 and `npu_device.compat.v1` on 2.x. Its import
redirects every later Session: it is imported by name, on first use, for device npu alone, or to see
whether auto can take it.
"""

from __future__ import annotations

import importlib
import json
import os
import re

from gitloss.backend import tf
from trainers.devices.npu_options import KEYS
from trainers.options import device_id

ADAPTER = 'npu_bridge' if tf.__version__.startswith('1.') else 'npu_device.compat.v1'


def session_config(values):
    """The ConfigProto of the adapter's sessions, from `npu_options.settings`."""
    config = tf.ConfigProto(allow_soft_placement=True)
    config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.OFF
    rewrites = config.graph_options.rewrite_options
    # RewriterConfig.OFF, by the adapter's rule in both fields: what they do breaks its own
    # rewriting.
    rewrites.remapping = rewrites.memory_optimization = 2
    optimizer = rewrites.custom_optimizers.add()
    optimizer.name = 'NpuOptimizer'
    for key, value in sorted(values.items()):
        setattr(
            optimizer.parameter_map[key],
            KEYS[key].field,
            tf.compat.as_bytes(value) if isinstance(value, str) else value,
        )
    return config


def adapter(module='npu_init'):
    """A module of the adapter, imported. ValueError: it is not there, or a compiled library behind
    it is not.
    """
    try:
        found = importlib.import_module(f'{ADAPTER}.{module}')
        if module == 'npu_init' and ADAPTER != 'npu_bridge':
            importlib.import_module('npu_device.compat').enable_v1()
        return found
    except (
        ImportError,
        AttributeError,
        OSError,
        tf.errors.NotFoundError,
    ) as error:  # the last: a library that TensorFlow loads
        raise ValueError(
            f'--device: expected {ADAPTER} of CANN to be importable for npu on TensorFlow {tf.__version__}. Received: {(str(error) or type(error).__name__).splitlines()[0]}; is CANN installed and its '
            'set_env.sh sourced?'
        )


def loss_scaled(optimizer, scale, is_distributed=False):
    """The optimizer behind NPULossScaleOptimizer; `scale`: "dynamic" or a number. To be called
    outside any control_dependencies.
    """
    managers = adapter('estimator.npu.npu_loss_scale_manager')
    if (
        scale == 'dynamic'
    ):  # halves and doubles, so that the scale stays a power of two and costs no rounding
        manager = managers.ExponentialUpdateLossScaleManager(
            2.0**16, 1000, decr_every_n_nan_or_inf=2, decr_ratio=0.5
        )
    else:
        manager = managers.FixedLossScaleManager(float(scale))
    return adapter('estimator.npu.npu_loss_scale_optimizer').NPULossScaleOptimizer(
        optimizer, manager, is_distributed
    )


def sunk(train_op, iterations):
    """(op, load): `iterations` training steps in one session.run of `op`, once load(session) was
    called. To be made once, at the root name
    scope: the adapter looks for `IterationOp`."""
    loop = adapter('estimator.npu.util').IterationPerLoop()
    return loop.create_iteration_per_loop_var(
        train_op
    ), lambda session: loop.load_iteration_per_loop_var(session, iterations)


def rank_environment(environment=os.environ):
    """(rank, size) from the environment, checked, because a wrong one ends in a time-out.
    ValueError: the line names the variable.
    """

    def number(name, default, high):
        text = environment.get(name) or default
        if not re.match(r'\d{1,5}$', text) or not int(text) < high:
            raise ValueError(
                '%s: expected a whole number below %d. Received: %r' % (name, high, text)
            )
        return int(text)

    size = number('RANK_SIZE', '1', 32769)
    if size <= 1:
        return 0, 1
    rank = number('RANK_ID', 'none', size)
    if not environment.get('JOB_ID'):
        raise ValueError(
            'JOB_ID: expected any name, the same for all ranks, with RANK_SIZE=%d. Received: none'
            % size
        )
    card = device_id(environment)
    if not (environment.get('ASCEND_DEVICE_ID') or environment.get('DEVICE_ID')):
        raise ValueError(
            'ASCEND_DEVICE_ID: expected the card of this rank with RANK_SIZE=%d. Received: none, nor DEVICE_ID'
            % size
        )
    path = environment.get('RANK_TABLE_FILE') or ''
    problem = _problem_of_table(path, rank, size, card)
    if problem:
        raise ValueError(
            'RANK_TABLE_FILE: expected a rank table in JSON with RANK_SIZE=%d. Received: %r, %s'
            % (size, path, problem)
        )
    return rank, size


def _problem_of_table(path, rank, size, card):
    """What is wrong with a rank table for this rank; None: nothing. Of the older form, with a
    group_list, nothing more is asked.
    """
    try:
        with open(path, encoding='utf-8') as file:
            table = json.load(file)
        if isinstance(table, dict) and 'group_list' in table:
            return None
        cards = {
            str(one['rank_id']): str(one['device_id'])
            for server in table['server_list']
            for one in server['device']
        }
    except OSError as error:
        return error.strerror
    except (ValueError, RecursionError) as error:
        return f'not JSON: {error}'
    except (TypeError, LookupError):
        return 'without the server_list[].device[].rank_id and device_id of its version 1.0'
    if len(cards) != size:
        return 'with %d ranks' % len(cards)
    if cards.get(str(rank)) != card:
        return 'with rank %d on %s, not on device %s' % (
            rank,
            'device ' + cards[str(rank)] if str(rank) in cards else 'no device',
            card,
        )
    return None
