"""Classes in shards on the fake NPU: one card and two."""

import concurrent.futures
import os

import pytest

import toys
from fake_npu import on_the_fake, rank_table, weights_of
from helpers import relative_error
from trainers import devices
from trainers.options import Options


def job(settings, table, rank, size):
    return toys.flags_of(settings), {
        'RANK_SIZE': str(size),
        'RANK_ID': str(rank),
        'ASCEND_DEVICE_ID': str(rank),
        'JOB_ID': '1',
        'RANK_TABLE_FILE': table,
        'FAKE_HCCL': f'{settings.exp_save_dir}.hccl{settings.steps}',  # of this run alone
        'FAKE_HCCL_TIMEOUT': '40',
    }


def train(one, two, table):
    """The runs of one card and those of two, each in a process for a card."""
    jobs = [[job(settings, table, rank, 2) for settings in two] for rank in range(2)]
    jobs[0] += [job(settings, table, 0, 1) for settings in one]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda its: on_the_fake(*its, kind='crew'), jobs)
        for result in [one for several in results for one in several]:
            assert result.returncode == 0, result.stderr[-2000:]


def test_two_cards_with_shards_train_as_one(tmp_path):
    """One card with two shards, two with one each; the fake refuses shapes that are not static
    and operations that a card has not. A step, its checkpoint, and a second step from it.
    """
    table = rank_table(tmp_path / 'table.json', 2)
    common = {
        'device': 'npu',
        'loss_scale': '1024',
        'optimizer': 'momentum',
        'adam_epsilon': 1e-4,
        'shard_classes': True,
        'embedding_dim': 16,
        'update_centers': 2,
    }
    runs = {}
    for name, shards in (('one', 2), ('two', 1)):
        path = str(tmp_path / name)
        for steps in (1, 2):
            os.makedirs(f'{path}.hccl{steps}')
        runs[name] = [
            toys.options(
                tmp_path,
                exp_save_dir=path,
                steps=steps,
                class_shards=shards,
                save_every='1',
                **common,
            )
            for steps in (1, 2)
        ]
    train(runs['one'], runs['two'], table)
    for step in (1, 2):
        mine, its = (weights_of(runs[name][1], step) for name in ('one', 'two'))
        assert set(mine) == set(its) and mine['logits/class_weights'].shape == (4, 16)
        for name, value in mine.items():
            assert relative_error(its[name], value) <= 1e-5, (step, name)


def test_a_sample_of_the_classes_is_refused():
    with pytest.raises(ValueError, match='--sample_classes: expected 1 on an NPU'):
        devices.choose(Options(device='npu', shard_classes=True, sample_classes=0.5))
