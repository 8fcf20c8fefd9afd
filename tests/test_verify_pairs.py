"""Verification at each measurement of a training, against trainers.evaluate."""

import json
import os

import numpy as np
import pytest

import portraits
import survival
from callbacks.verification import Verification
from gitloss.data.pairs import Pairs
from handles import FakeHandle
from trainers import checkpoints, evaluate, run


def pair_list(path):
    """Eight genuine and eight impostor pairs of four people with four images each."""
    lines = []
    for person in range(4):
        for i in (0, 2):
            lines.append(f'p{person}/{i} p{person}/{i + 1} 1')
            lines.append(f'p{person}/{i} p{(person + 1) % 4}/{i + 1} 0')
    path.write_text('\n'.join(lines) + '\n')
    return str(path)


def test_a_training_verifies_and_keeps_the_best(tmp_path, capsys):
    """Its figures are those of trainers.evaluate on the same checkpoint, and --best reads them."""
    images = portraits.write(tmp_path / 'faces', [f'p{i}' for i in range(4)], 4)
    pairs, out = pair_list(tmp_path / 'pairs.txt'), str(tmp_path / 'run')
    flags = '--dataset=folder --image_size=16 --model=mnist_cnn --embedding_dim=3 --steps=6'
    flags += ' --batch_size=4 --update_centers=2 --device=cpu --best=verify_auc --projection=pca'
    paths = [f'--data_path={images}', f'--exp_save_dir={out}', f'--pairs_path={images}']
    assert run.main([*flags.split(), *paths, f'--verify_pairs={pairs}', '--far=0.2']) == 0
    rows = {row['step']: row for row in survival.history(out)}
    assert sorted(rows) == [2, 4, 6]
    best = max(rows.values(), key=lambda row: row['verify_auc'])['verify_auc']
    found = checkpoints.find(out, '--ckpt_path')
    assert rows[found.step]['verify_auc'] == best
    capsys.readouterr()
    given = [f'--ckpt_path={found.path}', f'--pairs={pairs}', f'--pairs_path={images}']
    assert evaluate.main([*given, '--far=0.2', '--batch_size=3', '--device=cpu']) == 0
    plain, row = json.loads(capsys.readouterr().out)['plain'], rows[found.step]
    theirs = (plain['accuracy'], plain['auc'], plain['eer'], plain['calibration']['tar'])
    ours = [row[f'verify_{name}'] for name in ('acc', 'auc', 'eer', 'tar')]
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


class Sweeps(FakeHandle):
    """Gives these embeddings."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def sweep(self, source, with_losses=False, with_predictions=True):
        yield self.rows, None, None, {}


@pytest.mark.parametrize(
    'rows, names',
    [
        # Cosines 1 and 0: told apart; one impostor pair says nothing about a FAR of 1e-3.
        ([[1, 0], [2, 0], [0, 1]], {'verify_acc', 'verify_auc', 'verify_eer'}),
        ([[1, 0], [0, 0], [0, 1]], set()),
        ([[1, 0], [np.nan, 0], [0, 1]], set()),
    ],
)
def test_what_is_undefined_is_not_logged(caplog, rows, names):
    pairs = Pairs(['a', 'b', 'c'], np.array([0, 0]), np.array([1, 2]), np.array([True, False]))
    callback, logs = Verification(pairs, None), {}
    callback.handle = Sweeps(np.array(rows, np.float32))
    callback.on_epoch_end(1, logs)
    assert set(logs) == names
    assert bool(names) != ('no verification at step' in caplog.text)
    if names:
        assert (logs['verify_auc'], logs['verify_eer']) == (1.0, 0.0)


def test_pairs_without_images_end_the_run_in_one_line(tmp_path, capsys):
    images = portraits.write(tmp_path / 'faces', ['p0', 'p1'], 2)
    pairs = pair_list(tmp_path / 'pairs.txt')
    flags = [f'--data_path={images}', f'--exp_save_dir={tmp_path / "run"}', '--dataset=folder']
    assert run.main([*flags, f'--verify_pairs={pairs}', f'--pairs_path={images}']) == 2
    told = capsys.readouterr().err
    assert '12 missing, the first is' in told and not os.path.exists(str(tmp_path / 'run' / 'ckpt'))
