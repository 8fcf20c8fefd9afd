"""The flag files for faces, as they are but for the network and the size of the work."""

import glob
import json
import os

import numpy as np
import pytest

import faces
from survival import tensors
from trainers import checkpoints, run
from trainers.options import ROOT, parse

SMALL = [
    '--model=mnist_cnn',
    '--image_size=16',
    '--steps=6',
    '--update_centers=3',
    '--batch_size=8',
    '--warmup_steps=1',
]


@pytest.mark.parametrize('path', sorted(glob.glob(os.path.join(ROOT, 'flags', '*.cfg'))))
def test_every_flag_file_is_accepted(path, monkeypatch):
    monkeypatch.chdir(ROOT)  # one may include another
    command = 'trainers.sweep' if path.endswith('paper.cfg') else 'trainers.run'
    assert parse([f'--flagfile={path}'], command).steps >= 1


def trained(tmp_path, flag_file, data, *flags):
    """(weights, results) of a run by a flag file."""
    folder = str(tmp_path / flag_file)
    arguments = [
        f'--flagfile=flags/{flag_file}',
        f'--data_path={data}',
        f'--exp_save_dir={folder}',
        '--device=cpu',
        *SMALL,
        *flags,
    ]
    assert run.main(arguments) == 0
    with open(os.path.join(folder, 'results.json')) as file:
        return tensors(checkpoints.find(folder, 'run')), json.load(file)


def test_faces_are_trained_and_then_fine_tuned_to_other_people(tmp_path, monkeypatch):
    """Six people, then three others: the network comes from the first run and stays as it is for
    two steps; after six it has moved, at most by 4 * 0.1 * 0.002 * 4, four steps at a tenth of the
    rate, each of which is at most 4 times the rate with Adam.
    """
    monkeypatch.chdir(ROOT)
    first, results = trained(tmp_path, 'faces.cfg', faces.write(tmp_path / 'six', 6))
    assert {'test_acc', 'valid_acc', 'inter_cls_dist'} <= set(results['final'])
    others = faces.write(tmp_path / 'three', range(10, 13))
    start = f'--init_checkpoint={tmp_path / "faces.cfg"}'
    second, _ = trained(tmp_path, 'finetune.cfg', others, start, '--unfreeze_at=2')
    assert first['logits/kernel'].shape == (128, 6) and second['logits/kernel'].shape == (128, 3)
    kernels = [f'conv{stage}_{part}/kernel' for stage in (1, 2, 3) for part in (1, 2)]
    moves = [np.abs(first[name] - second[name]).max() for name in kernels]
    assert 0 < min(moves) and max(moves) < 4 * 0.1 * 0.002 * 4
