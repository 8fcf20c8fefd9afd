"""The examples of docs/export.md run as they stand."""

import os
import re
import shutil

import numpy as np
import pytest

import exports
import toys
from callbacks.checkpoint import Checkpoint
from gitloss import data
from portraits import encoded
from runs import trainer_of
from trainers import checkpoints, export
from trainers.exporting.graph import network_of
from trainers.options import ROOT


def test_onnxruntime_in_fifteen_lines(tmp_path, monkeypatch, capsys):
    """In a folder with an export and an image: the class and the embedding of the network."""
    pytest.importorskip('onnxruntime')
    with open(os.path.join(ROOT, 'docs', 'export.md'), encoding='utf-8') as file:
        (example,) = re.findall(r'```python\n(.*?)```', file.read(), re.DOTALL)
    assert len(example.splitlines()) <= 15
    settings = toys.options(tmp_path)
    trainer_of(settings, [Checkpoint()]).fit()
    flags = [f'--ckpt_path={settings.run_dir}', f'--export_dir={tmp_path}/output/0/export']
    assert export.main([*flags, '--format=onnx']) == 0
    image = data.load('mnist', settings.data_folder).test.images(np.arange(1))
    (tmp_path / 'image.png').write_bytes(encoded(image[0]))
    monkeypatch.chdir(str(tmp_path))
    scope = {}
    exec(example, scope)  # noqa: S102 - the text of our own page
    with network_of(checkpoints.find(settings.run_dir, '--ckpt_path')) as network:
        expected = network(image)
    assert exports.relative(scope['embeddings'], expected['embeddings']) < 1e-5
    assert scope['predictions'][0] == expected['logits'].argmax()
    shutil.rmtree(str(tmp_path / 'output'))
