"""--npu_option and the other flags of the NPU, as the adapter's parameter_map: typed, and checked
before the adapter is imported.

The adapter ignores an unknown key without a message, and reads a value in the wrong field of the
proto as 0. So the table KEYS is the only check.
"""

from __future__ import annotations

import collections
import difflib
import json
import os
import re
from typing import Any, Callable

from gitloss.errors import OptionError
from trainers.options import PRECISION_MODES, Options

Key = collections.namedtuple('Key', 'field allowed default')
Key.__doc__ = """A setting of the adapter.

Attributes:
  field: its field of the AttrValue: b, i or s.
  allowed: its values, a pair (low, high), or a name in _TEXTS.
  default: the adapter's own.
"""
_COUNT, _SECONDS = (1, 2**31 - 1), (1, 2147483)
KEYS = {
    'use_off_line': Key('b', (True,), True),  # False would compute on the host
    'mix_compile_mode': Key('b', None, False),
    'enable_data_pre_proc': Key('b', None, False),
    'hcom_parallel': Key('b', None, True),
    'enable_dump': Key('b', None, False),
    'enable_dump_debug': Key('b', None, False),
    'profiling_mode': Key('b', None, False),
    'iterations_per_loop': Key('i', _COUNT, 1),
    'graph_run_mode': Key('i', (0, 1), 1),
    'session_device_id': Key('i', (0, 9999), None),
    'local_rank_id': Key('i', (0, 9999), None),
    'deterministic': Key('i', (0, 1), 0),
    'hccl_timeout': Key('i', _SECONDS, 1836),
    'op_wait_timeout': Key('i', _SECONDS, 120),
    'op_execute_timeout': Key('i', _SECONDS, None),
    'static_memory_policy': Key('i', (0, 4), None),
    'precision_mode': Key('s', PRECISION_MODES, None),
    'precision_mode_v2': Key(
        's',
        (
            'fp16',
            'origin',
            'cube_fp16in_fp32out',
            'mixed_float16',
            'mixed_bfloat16',
            'mixed_hif8',
            'cube_hif8',
        ),
        None,
    ),
    'modify_mixlist': Key('s', 'file', None),
    'customize_dtypes': Key('s', 'file', None),
    'op_precision_mode': Key('s', 'file', None),
    'dump_path': Key('s', 'folder', None),
    'dump_step': Key('s', 'steps', None),
    'dump_mode': Key('s', ('input', 'output', 'all'), 'output'),
    'dump_debug_mode': Key('s', ('all', 'aicore_overflow', 'atomic_overflow'), None),
    'profiling_options': Key('s', 'json', None),
    'aoe_mode': Key('s', ('1', '2', '4'), None),
    'work_path': Key('s', 'folder', None),
    'jit_compile': Key('s', ('true', 'false', 'auto'), None),
    'op_compiler_cache_mode': Key('s', ('enable', 'force', 'disable'), None),
    'op_compiler_cache_dir': Key('s', 'any', None),
    'fusion_switch_file': Key('s', 'file', None),
    'debug_dir': Key('s', 'folder', None),
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


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


_TEXTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    'any': ('text', bool),
    'json': ('a JSON object', _is_json_object),
    'steps': (
        'of the form 0|5|10-20',
        re.compile(r'[0-9]+(-[0-9]+)?(\|[0-9]+(-[0-9]+)?)*').fullmatch,
    ),
    'file': ('a file that can be read', lambda path: os.access(path, os.R_OK)),
    'folder': (
        'a folder that exists and can be written',
        lambda path: os.path.isdir(path) and os.access(path, os.W_OK),
    ),
}


def _check(fits: Any, expected: str, received: str) -> None:
    if not fits:
        raise OptionError(f'--npu_option: expected {expected}. Received: {received}')


def _value(key: str, text: str) -> Any:
    """The value of one setting, in its type."""
    field, allowed, _ = KEYS[key]
    value: Any = text
    if field == 'b':
        value = {'true': True, '1': True, 'false': False, '0': False}.get(text.lower())
        expected, fits = 'true' if allowed else 'true or false', value in (allowed or (True, False))
    elif field == 'i':
        value = int(text) if re.fullmatch('[0-9]{1,10}', text) else -1
        low, high = allowed
        expected, fits = f'a whole number from {low} to {high}', low <= value <= high
    elif isinstance(allowed, tuple):
        expected, fits = 'one of ' + ', '.join(allowed), text in allowed
    else:
        expected, test = _TEXTS[allowed]
        fits = test(text)
    _check(fits, f'{key} to be {expected}', repr(text))
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
        near = difflib.get_close_matches(key, KEYS, 1)
        _check(equals, 'key=value, several with commas between', repr(part))
        _check(key in KEYS, 'a known key' + (f', {near[0]} perhaps' if near else ''), key)
        _check(key not in values, 'each key once', key + ' twice')
        values[key] = _value(key, value)
    return values


def _set_precision(values: dict[str, Any], options: Options) -> None:
    """Adds the precision mode: of --precision_mode or of --npu_option, else that of --precision."""
    asked = options.precision_mode
    if asked:
        mode = values.setdefault('precision_mode', asked)
        _check(mode == asked, f'the mode of --precision_mode, {asked}', mode)
    is_one = not {'precision_mode', 'precision_mode_v2'} <= set(values)
    _check(is_one, 'precision_mode or precision_mode_v2', 'both')
    mode = values.get('precision_mode') or values.get('precision_mode_v2')
    if mode is None:
        # Not must_keep_origin_dtype: the convolutions of a 910A take no float32, so the graph would
        # not compile.
        mode = values['precision_mode'] = (
            'force_fp32' if options.precision == 'fp32' else 'allow_mix_precision'
        )
    wanted = {'fp32': FULL_PRECISION, 'mixed': _MIXED}.get(options.precision)
    if wanted and mode not in wanted:
        raise OptionError(
            f'--precision={options.precision}: expected a precision mode of its kind, one of '
            f'{", ".join(sorted(wanted))}. Received: {mode}'
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
