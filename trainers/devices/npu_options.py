"""--npu_option and the other flags of the NPU, as the adapter's parameter_map: typed, and checked
before the adapter is imported.

The adapter ignores an unknown key without a message, and reads a value of another type as 0. So the
table KEYS is the only check.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from typing import Any

from gitloss.errors import OptionError
from trainers.options import PRECISION_MODES, Option, Options


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


# Tests of a text, see Option.accepts.
_FILE = (lambda path: os.access(path, os.R_OK), 'a file that can be read')
_FOLDER = (
    lambda path: os.path.isdir(path) and os.access(path, os.W_OK),
    'a folder that exists and can be written',
)
_SECONDS = 2147483
# The settings of the adapter: their types, values and defaults; 0 or '' is the default where the
# adapter documents none.
KEYS = {
    'use_off_line': Option(True, choices=(True,)),  # False would compute on the host
    'mix_compile_mode': Option(False),
    'enable_data_pre_proc': Option(False),
    'hcom_parallel': Option(True),
    'enable_dump': Option(False),
    'enable_dump_debug': Option(False),
    'profiling_mode': Option(False),
    'iterations_per_loop': Option(1, low=1, high=2**31 - 1),
    'graph_run_mode': Option(1, low=0, high=1),
    'session_device_id': Option(0, low=0, high=9999),
    'local_rank_id': Option(0, low=0, high=9999),
    'deterministic': Option(0, low=0, high=1),
    'hccl_timeout': Option(1836, low=1, high=_SECONDS),
    'op_wait_timeout': Option(120, low=1, high=_SECONDS),
    'op_execute_timeout': Option(0, low=1, high=_SECONDS),
    'static_memory_policy': Option(0, low=0, high=4),
    'precision_mode': Option('', choices=PRECISION_MODES),
    'precision_mode_v2': Option(
        '',
        choices=(
            'fp16',
            'origin',
            'cube_fp16in_fp32out',
            'mixed_float16',
            'mixed_bfloat16',
            'mixed_hif8',
            'cube_hif8',
        ),
    ),
    'modify_mixlist': Option('', accepts=_FILE),
    'customize_dtypes': Option('', accepts=_FILE),
    'op_precision_mode': Option('', accepts=_FILE),
    'dump_path': Option('', accepts=_FOLDER),
    'dump_step': Option(
        '',
        accepts=(
            re.compile(r'[0-9]+(-[0-9]+)?(\|[0-9]+(-[0-9]+)?)*').fullmatch,
            'steps, as 0|5|10-20',
        ),
    ),
    'dump_mode': Option('output', choices=('input', 'output', 'all')),
    'dump_debug_mode': Option('', choices=('all', 'aicore_overflow', 'atomic_overflow')),
    'profiling_options': Option('', accepts=(_is_json_object, 'a JSON object')),
    'aoe_mode': Option('', choices=('1', '2', '4')),
    'work_path': Option('', accepts=_FOLDER),
    'jit_compile': Option('', choices=('true', 'false', 'auto')),
    'op_compiler_cache_mode': Option('', choices=('enable', 'force', 'disable')),
    'op_compiler_cache_dir': Option('', accepts=(bool, 'text')),
    'fusion_switch_file': Option('', accepts=_FILE),
    'debug_dir': Option('', accepts=_FOLDER),
}
_MIXED = {
    'allow_mix_precision',
    'allow_mix_precision_fp16',
    'allow_mix_precision_bf16',
    'mixed_float16',
    'mixed_bfloat16',
    'mixed_hif8',
}
FULL_PRECISION = {'force_fp32', 'must_keep_origin_dtype', 'origin', 'cube_fp16in_fp32out'}
# Keys that the adapter reads only if a switch is on.
_BESIDE = {
    'dump_step': 'enable_dump',
    'dump_mode': 'enable_dump',
    'dump_debug_mode': 'enable_dump_debug',
    'profiling_options': 'profiling_mode',
}
# Keys in which the ranks of one training may differ: cards, and paths on their machines.
_OF_A_RANK = {
    'session_device_id',
    'local_rank_id',
    'dump_path',
    'work_path',
    'debug_dir',
    'profiling_options',
    'op_compiler_cache_dir',
}


def _check(fits: Any, expected: str, received: str, flag: str = '--npu_option') -> None:
    if not fits:
        raise OptionError(f'{flag}: expected {expected}. Received: {received}')


def _value(key: str, text: str) -> Any:
    """The value of one setting, in its type."""
    value: Any = text
    if isinstance(KEYS[key].default, bool):
        value = {'true': True, '1': True, 'false': False, '0': False}.get(text.lower(), text)
    elif isinstance(KEYS[key].default, int) and re.fullmatch('-?[0-9]{1,20}', text):
        value = int(text)
    KEYS[key].check(f'npu_option={key}', value)
    return value


def _parts(text: str) -> list[str]:
    """Splits at the commas that precede a `name=`: values with commas, as JSON, need no quotes."""
    return re.split(r',(?=\w+=)', text) if text else []


def of_all_ranks(text: str) -> str:
    """The part of --npu_option that all ranks must share, sorted. It is not checked: paths may be
    of another machine.
    """
    return ','.join(
        sorted(part for part in _parts(text) if part.partition('=')[0] not in _OF_A_RANK)
    )


def parse(text: str) -> dict[str, Any]:
    """{key: value} of --npu_option.

    Raises:
      OptionError: a key is unknown or twice, or a value is not allowed.
    """
    values: dict[str, Any] = {}
    for part in _parts(text):
        key, equals, value = part.partition('=')
        near = ''.join(f', {known} perhaps' for known in difflib.get_close_matches(key, KEYS, 1))
        _check(equals, 'key=value, several with commas between', repr(part))
        _check(key in KEYS, f'a known key{near}', key)
        _check(key not in values, 'each key once', key + ' twice')
        values[key] = _value(key, value)
    return values


def _set_precision(values: dict[str, Any], options: Options) -> None:
    """Adds the precision mode: of --precision_mode or of --npu_option, else that of --precision."""
    asked = options.precision_mode
    if asked:
        mode = values.setdefault('precision_mode', asked)
        _check(mode == asked, f'the mode of --precision_mode, {asked}', mode)
    _check(
        not {'precision_mode', 'precision_mode_v2'} <= set(values),
        'precision_mode or precision_mode_v2',
        'both',
    )
    mode = values.get('precision_mode') or values.get('precision_mode_v2')
    if mode is None:
        # Not must_keep_origin_dtype: the convolutions of a 910A take no float32, so the graph would
        # not compile.
        mode = values['precision_mode'] = (
            'force_fp32' if options.precision == 'fp32' else 'allow_mix_precision'
        )
    wanted = {'fp32': FULL_PRECISION, 'mixed': _MIXED}.get(options.precision, {mode})
    _check(
        mode in wanted,
        f'a precision mode of its kind, one of {", ".join(sorted(wanted))}',
        mode,
        f'--precision={options.precision}',
    )
    chip = os.environ.get('SOC_VERSION') or 'Ascend910A'
    _check(
        not re.search('b(float|f)16|hif8', mode)
        or not re.fullmatch('Ascend910(A|B|(Pro|Premium)[AB])', chip),
        f'a precision mode of {chip}, which has neither bfloat16 nor hifloat8 (another card: set '
        'SOC_VERSION)',
        mode,
    )
    _check(
        mode in _MIXED or 'modify_mixlist' not in values,
        'a mixed precision mode with modify_mixlist',
        mode,
    )


def settings(options: Options) -> dict[str, Any]:
    """The parameter_map as {key: value}, checked before the adapter is imported.

    Raises:
      OptionError: a setting is wrong, or does not agree with another one.
    """
    values = dict(parse(options.npu_option), use_off_line=True)
    _check(
        'iterations_per_loop' not in values,
        'the flag --iterations_per_loop, which checks its rules',
        'the key',
    )
    _set_precision(values, options)
    dumps = [key for key in ('enable_dump', 'enable_dump_debug') if values.get(key)]
    _check(len(dumps) < 2, 'enable_dump or enable_dump_debug', 'both')
    _check(not dumps or 'dump_path' in values, 'dump_path with ' + ''.join(dumps), 'none')
    for key, switch in _BESIDE.items():
        _check(
            key not in values or values.get(switch),
            f'{switch}=true with {key}, which is not read otherwise',
            'none',
        )
    if options.iterations_per_loop > 1:
        for key, needed in (('enable_data_pre_proc', True), ('mix_compile_mode', False)):
            _check(
                values.get(key, needed) is needed,
                f'{key} to be {str(needed).lower()} with --iterations_per_loop',
                str(values.get(key)).lower(),
            )
        values.update(iterations_per_loop=options.iterations_per_loop, enable_data_pre_proc=True)
    return values
