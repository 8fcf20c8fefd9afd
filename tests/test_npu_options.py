"""The session configuration of an NPU to the letter, the table of its settings, and every
rejection.

Nothing here needs the adapter.
"""

import ast
import os

import pytest

from conftest import FAKES
from gitloss.backend import tf
from gitloss.errors import OptionError
from trainers.devices import npu, npu_options
from trainers.options import ROOT, Options


def test_the_config_proto_to_the_letter():
    """OFF is 2 in RewriterConfig, of which memory_optimization, by the adapter's rule, gets the
    number, and -1 in OptimizerOptions.
    Nothing else is set: the other rewriters stay as they are."""
    from google.protobuf import text_format

    config = npu.session_config(
        npu_options.settings(
            Options(device='npu', npu_option='hccl_timeout=600,enable_data_pre_proc=true')
        )
    )
    expected = text_format.Parse(
        """
        allow_soft_placement: true
        graph_options {
          optimizer_options { global_jit_level: OFF }
          rewrite_options {
            remapping: OFF
            memory_optimization: MANUAL
            custom_optimizers {
              name: "NpuOptimizer"
              parameter_map { key: "use_off_line" value { b: true } }
              parameter_map { key: "precision_mode" value { s: "allow_mix_precision" } }
              parameter_map { key: "enable_data_pre_proc" value { b: true } }
              parameter_map { key: "hccl_timeout" value { i: 600 } }
            }
          }
        }""",
        tf.ConfigProto(),
    )
    assert config == expected
    rewrites = config.graph_options.rewrite_options
    assert (
        rewrites.remapping,
        rewrites.memory_optimization,
        config.graph_options.optimizer_options.global_jit_level,
    ) == (2, 2, -1)


# A value of each key, as typed and as in the proto. {file} and {folder} exist.
ROWS = {
    'use_off_line': ('true', True),
    'mix_compile_mode': ('true', True),
    'enable_data_pre_proc': ('1', True),
    'hcom_parallel': ('false', False),
    'enable_dump': ('false', False),
    'enable_dump_debug': ('False', False),
    'profiling_mode': ('True', True),
    'graph_run_mode': ('0', 0),
    'session_device_id': ('3', 3),
    'local_rank_id': ('7', 7),
    'deterministic': ('1', 1),
    'hccl_timeout': ('1836', 1836),
    'op_wait_timeout': ('120', 120),
    'op_execute_timeout': ('90', 90),
    'static_memory_policy': ('2', 2),
    'precision_mode': ('force_fp32', b'force_fp32'),
    'precision_mode_v2': ('mixed_float16', b'mixed_float16'),
    'modify_mixlist': ('{file}', b'{file}'),
    'customize_dtypes': ('{file}', b'{file}'),
    'op_precision_mode': ('{file}', b'{file}'),
    'dump_path': ('{folder}', b'{folder}'),
    'dump_step': ('0|5|10-20', b'0|5|10-20'),
    'dump_mode': ('all', b'all'),
    'dump_debug_mode': ('aicore_overflow', b'aicore_overflow'),
    'profiling_options': (
        '{{"output":"/tmp","task_trace":"on"}}',
        b'{"output":"/tmp","task_trace":"on"}',
    ),
    'aoe_mode': ('2', b'2'),
    'work_path': ('{folder}', b'{folder}'),
    'jit_compile': ('auto', b'auto'),
    'op_compiler_cache_mode': ('enable', b'enable'),
    'op_compiler_cache_dir': ('/a/new one', b'/a/new one'),
    'fusion_switch_file': ('{file}', b'{file}'),
    'debug_dir': ('{folder}', b'{folder}'),
}
NEEDS = {
    'dump_step': 'enable_dump=true,dump_path={folder}',
    'dump_mode': 'enable_dump=true,dump_path={folder}',
    'dump_debug_mode': 'enable_dump_debug=true,dump_path={folder}',
    'profiling_options': 'profiling_mode=true',
}


def places(tmp_path):
    (tmp_path / 'file').write_text('{}')
    return {'file': str(tmp_path / 'file'), 'folder': str(tmp_path)}


def option_of(key, value, tmp_path):
    parts = ([NEEDS[key]] if key in NEEDS else []) + [f'{key}={value}']
    return ','.join(parts).format(**places(tmp_path))


@pytest.mark.parametrize('key', sorted(npu_options.KEYS))
def test_every_row_of_the_table_arrives_in_its_field(tmp_path, key):
    if key == 'iterations_per_loop':  # has a flag of its own
        values = npu_options.settings(Options(device='npu', iterations_per_loop=5, steps=10))
        assert (values['iterations_per_loop'], values['enable_data_pre_proc']) == (5, True)
        value, expected = npu.session_config(values), 5
    else:
        text, expected = ROWS[key]
        value = npu.session_config(
            npu_options.settings(Options(device='npu', npu_option=option_of(key, text, tmp_path)))
        )
        if isinstance(expected, bytes) and b'{f' in expected:
            expected = expected.decode().format(**places(tmp_path)).encode()
    found = value.graph_options.rewrite_options.custom_optimizers[0].parameter_map[key]
    field = npu.FIELDS[type(npu_options.KEYS[key].default)]
    assert found.WhichOneof('value') == field and getattr(found, field) == expected


def test_the_table_is_the_adapters():
    """Keys and fields as in the fake, which took them from the adapter and not from our table."""
    with open(os.path.join(FAKES, 'npu_bridge', 'npu_init.py')) as file:
        fields = next(
            ast.literal_eval(node.value)
            for node in ast.parse(file.read()).body
            if isinstance(node, ast.Assign) and node.targets[0].id == '_FIELDS'
        )
    assert {key: field for field, keys in fields.items() for key in keys.split()} == {
        key: npu.FIELDS[type(row.default)] for key, row in npu_options.KEYS.items()
    }


@pytest.mark.parametrize('name', ['ascend.md', 'ascend.zh.md'])
def test_the_guides_name_every_key(name):
    with open(os.path.join(ROOT, 'docs', name), encoding='utf-8') as file:
        text = file.read()
    assert [key for key in npu_options.KEYS if f'`{key}`' not in text] == []


def test_values_with_commas_need_no_quotes():
    text = (
        'profiling_mode=true,profiling_options={"output":"/tmp/p","training_trace":"on",'
        '"fp_point":""},dump_step=1|2'
    )
    assert npu_options.parse(text) == {
        'profiling_mode': True,
        'dump_step': '1|2',
        'profiling_options': '{"output":"/tmp/p","training_trace":"on","fp_point":""}',
    }


@pytest.mark.parametrize(
    'option, said',
    [
        (
            'precison_mode=force_fp32',
            '--npu_option: expected a known key, precision_mode perhaps. Received: precison_mode',
        ),
        (
            'no_such_thing_at_all=1',
            '--npu_option: expected a known key. Received: no_such_thing_at_all',
        ),
        # A key of older adapters.
        (
            'graph_memory_max_size=1',
            '--npu_option: expected a known key. Received: graph_memory_max_size',
        ),
        (
            'enable_dump',
            '--npu_option: expected key=value, several with commas between. Received: '
            "'enable_dump'",
        ),
        (
            'deterministic=1,deterministic=0',
            '--npu_option: expected each key once. Received: deterministic twice',
        ),
        (
            'hcom_parallel=maybe',
            "--npu_option=hcom_parallel: expected true or false. Received: 'maybe'",
        ),
        ('use_off_line=false', '--npu_option=use_off_line: expected one of true. Received: False'),
        (
            'deterministic=2',
            '--npu_option=deterministic: expected 0 to 1. Received: 2',
        ),
        (
            'hccl_timeout=soon',
            "--npu_option=hccl_timeout: expected a whole number. Received: 'soon'",
        ),
        (
            'hccl_timeout=2147484',
            '--npu_option=hccl_timeout: expected 1 to 2147483. Received: 2147484',
        ),
        (
            'session_device_id=-1',
            '--npu_option=session_device_id: expected 0 to 9999. Received: -1',
        ),
        (
            'jit_compile=True',
            "--npu_option=jit_compile: expected one of true, false, auto. Received: 'True'",
        ),
        (
            'profiling_options=on',
            "--npu_option=profiling_options: expected a JSON object. Received: 'on'",
        ),
        (
            'profiling_options=[1]',
            "--npu_option=profiling_options: expected a JSON object. Received: '[1]'",
        ),
        (
            'dump_step=1..3',
            "--npu_option=dump_step: expected steps, as 0|5|10-20. Received: '1..3'",
        ),
        (
            'modify_mixlist=/nowhere/list.json',
            '--npu_option=modify_mixlist: expected a file that can be read. Received: '
            "'/nowhere/list.json'",
        ),
        (
            'dump_path=/nowhere',
            '--npu_option=dump_path: expected a folder that exists and can be written. '
            "Received: '/nowhere'",
        ),
        ('enable_dump=true', '--npu_option: expected dump_path with enable_dump. Received: none'),
        (
            'enable_dump_debug=true',
            '--npu_option: expected dump_path with enable_dump_debug. Received: none',
        ),
        (
            'enable_dump=true,enable_dump_debug=true,dump_path={folder}',
            '--npu_option: expected enable_dump or enable_dump_debug. Received: both',
        ),
        (
            'dump_step=3',
            '--npu_option: expected enable_dump=true with dump_step, which is not read otherwise. '
            'Received: none',
        ),
        (
            'enable_dump_debug=true,dump_path={folder},dump_step=3',
            '--npu_option: expected enable_dump=true with dump_step, which is not read otherwise. '
            'Received: none',
        ),
        (
            'precision_mode=force_fp32,precision_mode_v2=origin',
            '--npu_option: expected precision_mode or precision_mode_v2. Received: both',
        ),
        (
            'precision_mode=force_fp32,modify_mixlist={file}',
            '--npu_option: expected a mixed precision mode with modify_mixlist. Received: '
            'force_fp32',
        ),
        (
            'precision_mode=allow_mix_precision_bf16',
            '--npu_option: expected a precision mode of Ascend910A, which has neither bfloat16 nor '
            'hifloat8 (another card: set SOC_VERSION). Received: allow_mix_precision_bf16',
        ),
        (
            'iterations_per_loop=5',
            '--npu_option: expected the flag --iterations_per_loop, which checks its rules. '
            'Received: the key',
        ),
    ],
)
def test_what_the_adapter_would_ignore_or_fail_at_is_one_line(tmp_path, option, said):
    given = option if '"' in option else option.format(**places(tmp_path))
    with pytest.raises(OptionError) as caught:
        npu_options.settings(Options(device='npu', npu_option=given))
    assert str(caught.value) == said


@pytest.mark.parametrize(
    'flags, said',
    [
        (
            {'precision': 'fp32', 'precision_mode': 'allow_mix_precision'},
            '--precision=fp32: expected a precision mode of its kind, one of cube_fp16in_fp32out, '
            'force_fp32, must_keep_origin_dtype, origin. '
            'Received: allow_mix_precision',
        ),
        (
            {'precision': 'mixed', 'npu_option': 'precision_mode_v2=origin'},
            '--precision=mixed: expected a precision mode of its kind',
        ),
        (
            {'precision_mode': 'force_fp32', 'npu_option': 'precision_mode=force_fp16'},
            '--npu_option: expected the mode of --precision_mode, force_fp32. Received: force_fp16',
        ),
        (
            {'precision_mode': 'force_fp32', 'npu_option': 'precision_mode_v2=origin'},
            '--npu_option: expected precision_mode or precision_mode_v2',
        ),
        (
            {'iterations_per_loop': 4, 'npu_option': 'mix_compile_mode=true'},
            '--npu_option: expected mix_compile_mode to be false with --iterations_per_loop. '
            'Received: true',
        ),
        (
            {'iterations_per_loop': 4, 'npu_option': 'enable_data_pre_proc=false'},
            '--npu_option: expected enable_data_pre_proc to be true with --iterations_per_loop. '
            'Received: false',
        ),
    ],
)
def test_flags_that_contradict_each_other(flags, said):
    with pytest.raises(OptionError) as caught:
        npu_options.settings(Options(device='npu', **flags))
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    'flags, mode',
    [
        ({}, 'allow_mix_precision'),
        ({'precision': 'mixed'}, 'allow_mix_precision'),
        ({'precision': 'fp32'}, 'force_fp32'),
        (
            {'precision': 'fp32', 'precision_mode': 'must_keep_origin_dtype'},
            'must_keep_origin_dtype',
        ),
        ({'precision_mode': 'allow_fp32_to_fp16'}, 'allow_fp32_to_fp16'),
        (
            {'precision': 'mixed', 'npu_option': 'precision_mode=allow_mix_precision_fp16'},
            'allow_mix_precision_fp16',
        ),
    ],
)
def test_precision_by_flag(flags, mode):
    assert npu_options.settings(Options(device='npu', **flags)) == {
        'use_off_line': True,
        'precision_mode': mode,
    }


def test_another_card_may_have_bfloat16(monkeypatch):
    monkeypatch.setenv('SOC_VERSION', 'Ascend910B3')
    assert (
        npu_options.settings(Options(device='npu', npu_option='precision_mode_v2=mixed_hif8'))[
            'precision_mode_v2'
        ]
        == 'mixed_hif8'
    )


@pytest.mark.parametrize('value', ['0', '-1', '0.5', 'auto', '1e3', 'Dynamic'])
def test_loss_scale_takes_a_number_from_1_on_or_dynamic(value):
    with pytest.raises(OptionError) as caught:
        Options(loss_scale=value)
    assert (
        str(caught.value)
        == f'--loss_scale: expected a number from 1 on, or dynamic. Received: {value!r}'
    )
