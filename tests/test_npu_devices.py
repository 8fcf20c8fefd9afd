"""Which device is chosen, with and without the adapter of the NPU, and who imports it."""

import os
import sys
import textwrap

import pytest

import toys
from fake_npu import here, python
from gitloss.backend import tf
from modules import MODULES
from trainers import devices
from trainers.devices import npu
from trainers.options import Options


def test_auto_does_not_import_the_adapter_without_a_card(fakes):
    device = devices.choose(Options())
    assert (device.name, device.reason) == ('cpu', 'no NPU and no GPU found')
    assert npu.ADAPTER.split('.')[0] not in sys.modules


NO_ADAPTER = "No module named '{}'; is CANN installed and its set_env.sh sourced?".format(
    npu.ADAPTER.split('.')[0]
)
BROKEN = (
    'libge_runner.so: cannot open shared object file: No such file or directory; is CANN '
    'installed and its set_env.sh sourced?'
)


@pytest.mark.parametrize('why', [NO_ADAPTER, BROKEN])
def test_a_missing_adapter_or_library_is_one_line_and_auto_goes_on_without(
    request, tmp_path, monkeypatch, capsys, why
):
    """With auto, a card set and no importable adapter the run is on the CPU and says so."""
    if why == BROKEN:
        request.getfixturevalue('fakes')
        monkeypatch.setenv('FAKE_NPU_BROKEN', '1')
    monkeypatch.setenv('DEVICE_ID', '2')
    device = devices.choose(Options())
    assert (device.name, device.reason) == ('cpu', 'no GPU found; no NPU: ' + why)
    assert here(toys.options(tmp_path, device='npu')) == 2
    expected = (
        f'--device: expected {npu.ADAPTER} of CANN to be importable for npu on TensorFlow '
        f'{tf.__version__}. Received: '
    )
    assert capsys.readouterr().err == f'trainers.run: {expected}{why}\n'
    assert not os.path.exists(str(tmp_path / 'run'))


@pytest.mark.parametrize(
    'flags, said',
    [
        (
            {'npu_option': 'deterministic=1'},
            '--npu_option: expected --device=npu, which alone has it. Received: device cpu '
            '(--device=cpu)',
        ),
        (
            {'iterations_per_loop': 4},
            '--iterations_per_loop: expected --device=npu, which alone has it. Received: device '
            'cpu (--device=cpu)',
        ),
    ],
)
def test_other_devices_refuse_what_only_the_npu_has(flags, said):
    with pytest.raises(ValueError) as caught:
        devices.choose(Options(device='cpu', **flags))
    assert str(caught.value) == said


ALARM = """
    import importlib, sys

    class Alarm:
        def find_spec(self, name, path=None, target=None):
            is_adapter = name.split('.')[0] in ('npu_bridge', 'npu_device')
            if is_adapter and sys._getframe(1).f_code.co_name != 'find_spec':
                raise AssertionError('imported ' + name)

    modules, flags, run_dir = eval(sys.argv[1]), eval(sys.argv[2]), sys.argv[3]
    sys.meta_path.insert(0, Alarm())
    for name in modules:
        try:
            importlib.import_module(name)
        except ValueError:  # TensorFlow 1.15 has no Keras for these
            assert name.startswith('gitloss.keras.'), name
    from types import SimpleNamespace
    from trainers import evaluate, export, run
    from trainers.exporting import parity, running

    def compare(command, **_):  # here, under the alarm, not in a process of its own
        return SimpleNamespace(returncode=running.main(command[3:]))

    parity.subprocess = SimpleNamespace(run=compare, DEVNULL=None, PIPE=None)
    assert run.main(flags) == 0
    flags = ['--ckpt_path=' + run_dir, '--device=cpu', '--data_path=' + sys.argv[4]]
    assert evaluate.main(flags) == 0
    assert export.main(['--ckpt_path=' + run_dir]) == 0
    assert not [name for name in sys.modules if name.startswith(('npu_bridge', 'npu_device'))]
    try:
        import npu_bridge
    except AssertionError:
        print('the alarm works')
"""


def test_nothing_imports_the_adapter_unless_the_device_is_npu(tmp_path):
    """Every module of the three packages is imported, a run on the CPU is made, its checkpoint
    evaluated and exported, with a finder that raises at the names of the adapter, the fake on the
    path, and the environment of a card.
    """
    settings = toys.options(tmp_path, steps=2, update_centers=2)
    result = python(
        '-c',
        textwrap.dedent(ALARM),
        repr(sorted(MODULES)),
        repr(toys.flags_of(settings)),
        settings.run_dir,
        settings.data_path,
        ASCEND_DEVICE_ID='0',
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == 'the alarm works'
