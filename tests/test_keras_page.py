"""The examples of docs/keras.md, in their order, in both Kerases."""

import os
import re

import numpy as np
import pytest

from gitloss.backend import tf
from machine import ROOT

SIZE = 192


def blocks():
    """The indented blocks of the page, as programs."""
    with open(os.path.join(ROOT, 'docs', 'keras.md')) as file:
        found = re.findall(r'(?:^ {4}.*\n|^\n(?= {4}))+', file.read(), re.MULTILINE)
    return [re.sub('^ {4}', '', block, flags=re.MULTILINE).strip() for block in found]


def program(name):
    """{variables} after the first example, the cut and a step of the loop."""
    random = np.random.RandomState(0)
    variables = {
        'images': random.randint(0, 256, (SIZE, 28, 28, 1)).astype(np.float32),
        'labels': random.randint(0, 10, SIZE),
    }
    fit, cut, loop = (
        block.replace('import keras\n', f'import {name} as keras\n') for block in blocks()
    )
    if name == 'tf_keras':
        fit = fit.replace('gitloss.keras.keras3', 'gitloss.keras.tf_keras')
    exec(fit, variables)  # noqa: S102
    variables['first'] = variables['model']
    keras, network = variables['keras'], variables['network']
    outputs = keras.layers.Dense(10)(network.outputs[0])
    variables['trained'] = keras.Model(network.inputs[0], outputs)
    exec(cut, variables)  # noqa: S102
    exec(loop, variables)  # noqa: S102
    return variables


@pytest.mark.skipif(tf.__version__.startswith('1.'), reason='TensorFlow 1.15 has no such fit')
@pytest.mark.parametrize('name', ['keras', 'tf_keras'])
def test_the_examples_run(name):
    found = program(name)
    assert found['embeddings'].shape == (SIZE, 64)
    assert found['first'].center_updates.numpy().sum() == 2 * SIZE  # two epochs
    assert found['model'].name != found['first'].name
    images, labels = found['images'][:32], found['labels'][:32]
    found['model'].compile(
        'sgd', found['keras'].losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    found['model'].train_on_batch(images, labels)
    assert found['model'].center_updates.numpy().sum() == 32
    assert np.isfinite(found['step'](images, labels).numpy())
    assert set(np.flatnonzero(np.abs(found['centers'].numpy()).sum(axis=1))) == set(labels)


def test_the_first_example_is_short():
    """Without blank lines fewer than fifteen lines, the network included."""
    lines = [line for line in blocks()[0].splitlines() if line]
    assert len(lines) < 15 and 'model.fit(' in lines[-2]
