"""The ranks of a training on several NPUs: their environment, their table, what they cannot do."""

import pytest

from fake_npu import rank_table
from trainers import devices
from trainers.checkpoints import rundir
from trainers.devices import npu
from trainers.options import Options
from trainers.workers import engines as distribution

TABLE = 'RANK_TABLE_FILE: expected a rank table in JSON with RANK_SIZE=8. Received: '


def test_one_card_needs_no_rank_table():
    assert npu.rank_environment({}) == (0, 1) and npu.rank_environment(
        {'RANK_SIZE': '1', 'RANK_ID': '5'}
    ) == (0, 1)


@pytest.mark.parametrize(
    'changes, said',
    [
        (
            {'RANK_SIZE': 'eight'},
            "RANK_SIZE: expected a whole number below 32769. Received: 'eight'",
        ),
        ({'RANK_ID': None}, "RANK_ID: expected a whole number below 8. Received: 'none'"),
        ({'RANK_ID': '8'}, "RANK_ID: expected a whole number below 8. Received: '8'"),
        (
            {'JOB_ID': None},
            'JOB_ID: expected any name, the same for all ranks, with RANK_SIZE=8. Received: none',
        ),
        (
            {'DEVICE_ID': None},
            'ASCEND_DEVICE_ID: expected the card of this rank with RANK_SIZE=8. Received: none, '
            'nor DEVICE_ID',
        ),
        ({'ASCEND_DEVICE_ID': 'x'}, "ASCEND_DEVICE_ID: expected a device number. Received: 'x'"),
        ({'ASCEND_DEVICE_ID': '3'}, TABLE + '{table}, with rank 7 on device 7, not on device 3'),
        (
            {'RANK_TABLE_FILE': '/nowhere.json'},
            TABLE + "'/nowhere.json', No such file or directory",
        ),
        ({'RANK_TABLE_FILE': __file__}, TABLE),
    ],
)
def test_the_ranks_environment_is_checked(tmp_path, monkeypatch, changes, said):
    """Reads the given environment: that of the process differs."""
    monkeypatch.setenv('ASCEND_DEVICE_ID', 'not a number')
    table = rank_table(tmp_path / 'table.json', 8)
    environment = {
        'RANK_SIZE': '8',
        'RANK_ID': '7',
        'JOB_ID': '10087',
        'DEVICE_ID': '7',
        'RANK_TABLE_FILE': table,
    }
    assert npu.rank_environment(environment) == (7, 8)
    environment.update(changes)
    with pytest.raises(ValueError) as caught:
        npu.rank_environment(
            {name: value for name, value in environment.items() if value is not None}
        )
    assert str(caught.value).startswith(said.replace('{table}', repr(table))) and '\n' not in str(
        caught.value
    )


@pytest.mark.parametrize(
    'text, said',
    [
        ('[' * 9999, 'not JSON: '),
        ('[]', 'without the server_list[].device[].rank_id'),
        ('{}', 'without the server_list[].device[].rank_id'),
        ('{"server_list": [{"device": ["0"]}]}', 'without the server_list[].device[].rank_id'),
        ('{"server_list": []}', 'with 0 ranks'),
        (
            '{"server_list": [{"device": [{"rank_id": "0", "device_id": "0"}, {"rank_id": "3", '
            '"device_id": "1"}]}]}',
            'with rank 1 on no device, not on device 1',
        ),
        ('{"group_list": [{"anything": 1}]}', None),
    ],
)
def test_the_rank_table_is_checked(tmp_path, text, said):
    (tmp_path / 'table.json').write_text(text)
    environment = {
        'RANK_SIZE': '2',
        'RANK_ID': '1',
        'JOB_ID': '1',
        'DEVICE_ID': '1',
        'RANK_TABLE_FILE': str(tmp_path / 'table.json'),
    }
    if said is None:
        assert npu.rank_environment(environment) == (1, 2)
        return
    with pytest.raises(ValueError) as caught:
        npu.rank_environment(environment)
    assert "table.json', " + said in str(caught.value)


def test_ranks_may_dump_each_to_a_folder_of_its_own_and_differ_in_nothing_else():
    """In another order too, and with a file that this machine does not have."""

    def facts(option):
        return [Options(npu_option=option).as_dict(), {}]

    chief = facts(
        'dump_path=/0/dump,enable_dump_debug=true,modify_mixlist=/nowhere,profiling_options={"output":"/0","a":1},work_path=/0'
    )
    rundir.check_worker(
        1,
        facts(
            'profiling_options={"output":"/1","a":1},enable_dump_debug=true,work_path=/1,dump_path=/1,'
            'modify_mixlist=/nowhere,session_device_id=1,local_rank_id=1,debug_dir=/1'
        ),
        chief,
    )
    with pytest.raises(ValueError) as caught:
        rundir.check_worker(
            1,
            facts('enable_dump_debug=true,dump_path=/1,modify_mixlist=/nowhere,deterministic=1'),
            chief,
        )
    assert str(caught.value) == (
        'worker 1: expected the flags of worker 0. Received: --npu_option (was '
        'enable_dump_debug=true,modify_mixlist=/nowhere, is '
        'deterministic=1,enable_dump_debug=true,modify_mixlist=/nowhere)'
    )


@pytest.mark.parametrize(
    'device, flags, said',
    [
        (
            'npu',
            {'batch_size': 12},
            '--batch_size: expected a multiple of the 8 workers, it is the batch of all. '
            'Received: 12',
        ),
        (
            'npu',
            {'collective_timeout': 120.0},
            '--collective_timeout: expected --npu_option=hccl_timeout=SECONDS on npu, which has '
            'this clock '
            'alone. Received: 120',
        ),
        ('cpu', {}, 'RANK_SIZE: expected 1 on any device but npu. Received: 8 on cpu (its reason)'),
    ],
)
def test_what_ranks_cannot_do_is_refused(monkeypatch, tmp_path, device, flags, said):
    """On another device each of the eight ranks would train alone."""
    for name, value in (
        ('RANK_SIZE', '8'),
        ('RANK_ID', '1'),
        ('JOB_ID', '1'),
        ('ASCEND_DEVICE_ID', '1'),
        ('RANK_TABLE_FILE', rank_table(tmp_path / 'table.json', 8)),
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError) as caught:
        distribution.choose(
            Options(device=device, **flags), devices.Device(device, 'its reason', None, True)
        )
    assert str(caught.value) == said
