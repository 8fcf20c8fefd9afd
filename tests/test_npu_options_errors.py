"""Settings of an NPU that its adapter would ignore or fail at: each is rejected in one line."""

import pytest

from fake_npu import places
from gitloss.errors import OptionError
from trainers.devices import npu_options
from trainers.options import Options


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


@pytest.mark.parametrize('value', ['0', '-1', '0.5', 'auto', '1e3', 'Dynamic'])
def test_loss_scale_takes_a_number_from_1_on_or_dynamic(value):
    with pytest.raises(OptionError) as caught:
        Options(loss_scale=value)
    assert (
        str(caught.value)
        == f'--loss_scale: expected a number from 1 on, or dynamic. Received: {value!r}'
    )
