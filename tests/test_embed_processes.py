"""trainers.embed in processes of its own: killed and continued; on the NPU's fake."""

import os
import time

import numpy as np
import pytest

import forking
import portraits
from fake_npu import python
from gitloss.data.embedding_files import read_npz
from trainers import embed, run

# Parts of two images, each of which takes a while to read.
SLOWLY = """
import sys, time
from gitloss.data.images import ImageSource
from trainers import embed, parts
parts.PART = 2
read = ImageSource.read
ImageSource.read = lambda source, indices: (time.sleep(0.05), read(source, indices))[1]
sys.exit(embed.main(sys.argv[1:]))
"""
ON_THE_FAKE = 'import sys; from trainers import embed; sys.exit(embed.main(sys.argv[1:]))'


@pytest.fixture(scope='module')
def flags(tmp_path_factory):
    """Of trainers.embed with a run of one step on 30 images."""
    folder = tmp_path_factory.mktemp('embed')
    images, out = portraits.write(folder / 'faces', ('ann', 'bo', 'cy'), 10), str(folder / 'run')
    given = '--dataset=folder --image_size=16 --model=toy --embedding_dim=3 --steps=1'
    given += ' --batch_size=4 --update_centers=1 --noevaluate --device=cpu'
    paths = [f'--data_path={images}', f'--exp_save_dir={out}']
    assert run.main([*given.split(), *paths]) == 0
    return [f'--ckpt_path={out}', f'--data_path={images}', '--batch_size=2']


@pytest.fixture(scope='module')
def whole(flags, tmp_path_factory):
    """(names, embeddings) of an undisturbed command."""
    out = str(tmp_path_factory.mktemp('whole') / 'e.npz')
    assert embed.main([*flags, f'--out={out}', '--device=cpu']) == 0
    return read_npz(out)


def test_killed_again_and_again_it_writes_the_same(flags, whole, tmp_path):
    """Each time as soon as two more parts are there. What is finished is not read again."""
    out = str(tmp_path / 'e.npz')
    given = ['-c', SLOWLY, *flags, f'--out={out}', '--device=cpu']

    def done():
        folder = out + '.parts'
        return (
            len([n for n in os.listdir(folder) if n.endswith('.npy')])
            if os.path.isdir(folder)
            else 0
        )

    for wanted in (2, 4, 6):
        process = forking.Process(given, str(tmp_path / 'log'))
        limit = time.monotonic() + 60
        while done() < wanted and time.monotonic() < limit:
            time.sleep(0.005)
        process.kill()
        process.wait(60)
        assert wanted <= done() < 15 and not os.path.exists(out)
    assert forking.run(given, tmp_path).returncode == 0
    names, rows = read_npz(out)
    assert names == whole[0] and os.listdir(str(tmp_path)).count('e.npz.parts') == 0
    np.testing.assert_allclose(rows, whole[1], rtol=1e-5, atol=1e-6)


def test_on_the_npu(flags, whole, tmp_path):
    """On its fake, which refuses what the card has not: the embeddings of the CPU."""
    out = str(tmp_path / 'e.npz')
    result = python('-c', ON_THE_FAKE, *flags, f'--out={out}', '--device=npu')
    assert result.returncode == 0, result.stderr
    names, rows = read_npz(out)
    assert names == whole[0]
    np.testing.assert_allclose(rows, whole[1], rtol=1e-5, atol=1e-6)
