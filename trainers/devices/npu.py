"""The Ascend NPU: session, loss scaling, iteration sinking and HCCL. The only module that imports
the adapter.

The adapter is `npu_bridge` on TensorFlow 1.15 and `npu_device.compat.v1` on 2.x. Its import
redirects every later Session. So it is imported by name, on first use, for the device npu alone, or
to find out whether --device=auto can take an NPU.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from typing import Any, Callable, Mapping

from gitloss import files
from gitloss.backend import tf
from gitloss.errors import reason
from trainers.options import device_id

ADAPTER = 'npu_bridge' if tf.__version__.startswith('1.') else 'npu_device.compat.v1'
# {type: field of the AttrValue}. The adapter reads a value in another field as 0.
FIELDS = {bool: 'b', int: 'i', str: 's'}


def session_config(values: Mapping[str, Any]) -> Any:
    """The ConfigProto of the adapter's sessions, from `npu_options.settings`."""
    parameters = {
        key: tf.AttrValue(
            **{FIELDS[type(value)]: tf.compat.as_bytes(value) if isinstance(value, str) else value}
        )
        for key, value in values.items()
    }
    return tf.ConfigProto(
        allow_soft_placement=True,
        graph_options={
            'optimizer_options': {'global_jit_level': tf.OptimizerOptions.OFF},
            'rewrite_options': {
                # RewriterConfig.OFF, which the adapter requires of both: they break its own
                # rewriting.
                'remapping': 2,
                'memory_optimization': 2,
                'custom_optimizers': [{'name': 'NpuOptimizer', 'parameter_map': parameters}],
            },
        },
    )


def adapter(module: str = 'npu_init') -> Any:
    """Imports a module of the adapter.

    Raises:
      ValueError: it is not installed, or a compiled library that it needs is not.
    """
    try:
        found = importlib.import_module(f'{ADAPTER}.{module}')
        if module == 'npu_init' and ADAPTER != 'npu_bridge':
            importlib.import_module('npu_device.compat').enable_v1()
        return found
    # NotFoundError: of a library that TensorFlow loads.
    except (ImportError, AttributeError, OSError, tf.errors.NotFoundError) as error:
        raise ValueError(
            f'--device: expected {ADAPTER} of CANN to be importable for npu on TensorFlow '
            f'{tf.__version__}. Received: {reason(error)}; is CANN installed and its set_env.sh '
            'sourced?'
        )


def loss_scaled(optimizer: Any, scale: str, is_distributed: bool = False) -> Any:
    """The optimizer in NPULossScaleOptimizer. To be called outside any control_dependencies.

    Args:
      scale: "dynamic" or a number.
    """
    managers = adapter('estimator.npu.npu_loss_scale_manager')
    if scale == 'dynamic':
        # Halved and doubled, the scale stays a power of two and causes no rounding.
        manager = managers.ExponentialUpdateLossScaleManager(
            2.0**16, 1000, decr_every_n_nan_or_inf=2, decr_ratio=0.5
        )
    else:
        manager = managers.FixedLossScaleManager(float(scale))
    return adapter('estimator.npu.npu_loss_scale_optimizer').NPULossScaleOptimizer(
        optimizer, manager, is_distributed
    )


def sunk(train_op: Any, iterations: int) -> tuple[Any, Callable[[Any], None]]:
    """A sunk loop: several training steps in one call of the NPU.

    To be built once, at the root name scope: the adapter looks for `IterationOp`.

    Returns:
      (op, load). One session.run of `op` makes `iterations` steps, after load(session).
    """
    loop = adapter('estimator.npu.util').IterationPerLoop()
    op = loop.create_iteration_per_loop_var(train_op)
    return op, lambda session: loop.load_iteration_per_loop_var(session, iterations)


def rank_environment(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank, size) from the environment, checked: a mistake there ends in a time-out.

    Raises:
      ValueError: the line names the variable.
    """

    def number(name: str, default: str, high: int) -> int:
        text = environment.get(name) or default
        if not re.fullmatch('[0-9]{1,5}', text) or not int(text) < high:
            raise ValueError(f'{name}: expected a whole number below {high}. Received: {text!r}')
        return int(text)

    size = number('RANK_SIZE', '1', 32769)
    if size <= 1:
        return 0, 1
    rank, path = number('RANK_ID', 'none', size), environment.get('RANK_TABLE_FILE') or ''
    problem = _problem_of_table(path, rank, size, device_id(environment))
    for wrong, line in (
        (
            not environment.get('JOB_ID'),
            'JOB_ID: expected any name, the same for all ranks, with '
            f'RANK_SIZE={size}. Received: none',
        ),
        (
            not (environment.get('ASCEND_DEVICE_ID') or environment.get('DEVICE_ID')),
            f'ASCEND_DEVICE_ID: expected the card of this rank with RANK_SIZE={size}. '
            'Received: none, nor DEVICE_ID',
        ),
        (
            problem,
            f'RANK_TABLE_FILE: expected a rank table in JSON with RANK_SIZE={size}. '
            f'Received: {path!r}, {problem}',
        ),
    ):
        if wrong:
            raise ValueError(line)
    return rank, size


def _problem_of_table(path: str, rank: int, size: int, card: str) -> str | None:
    """What is wrong with a rank table for this rank; None: nothing. A table in the older format,
    with a group_list, is not checked further.
    """
    try:
        table = json.loads(files.read(path))
        if isinstance(table, dict) and 'group_list' in table:
            return None
        cards = {
            str(one['rank_id']): f'device {one["device_id"]}'
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
        return f'with {len(cards)} ranks'
    place = cards.get(str(rank), 'no device')
    return (
        None if place == f'device {card}' else f'with rank {rank} on {place}, not on device {card}'
    )
