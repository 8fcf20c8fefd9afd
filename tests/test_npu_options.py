"""The session configuration of an NPU to the letter, and the table of its settings.

Nothing here needs the adapter; what is rejected is in test_npu_options_errors.py.
"""

import ast
import os

import pytest

import toys
from conftest import FAKES
from fake_npu import NPU_CFG, places
from gitloss.backend import tf
from trainers import run
from trainers.devices import npu, npu_options
from trainers.options import ROOT, Options, parse


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


def test_a_git_loss_whose_gradient_float16_may_lose_is_warned_of(tmp_path):
    """2 lambda_g over the terms of the mean, 128 x 128 x 2 or, pairwise, 256 x 255: 2^-14, the
    smallest normal number, does not warn, 3.05e-05 and 3.06e-05 do. flags/npu.cfg loses nothing.
    """

    def said(**changes):
        flags = dict({'batch_size': 128, 'adam_epsilon': 1e-4, 'lambda_g': 1.0}, **changes)
        return run.lost_in_float16(toys.options(tmp_path, **flags))

    assert said() == []
    assert [line.split()[10] for line in said(lambda_g=0.5)] == ['3.1e-05,']
    pairwise = {'batch_size': 256, 'git_loss_form': 'pairwise'}
    assert len(said(**pairwise)) == 1
    assert said(loss_scale='dynamic', **pairwise) == said(lambda_g=0.0) == []
    assert said(adam_epsilon=1e-8)[0].startswith('warning: --adam_epsilon=1e-08 is 0')
    assert run.lost_in_float16(parse(['--flagfile=' + NPU_CFG])) == []
