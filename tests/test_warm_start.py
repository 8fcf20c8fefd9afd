"""A run that starts from the weights of another one, and layers that stay frozen."""

import numpy as np
import pytest

import toys
from runs import fit, weights_of


def test_fine_tuning_with_other_classes(tmp_path, caplog):
    """The convolutions come from the checkpoint, and conv1 stays frozen; the classifier and the
    centers have other shapes and start afresh.
    """
    first = toys.options(tmp_path, exp_save_dir=str(tmp_path / 'first'))
    fit(first)
    toys.write_mnist(tmp_path / 'three', classes=3)
    second = toys.options(
        tmp_path,
        data_path=str(tmp_path / 'three'),
        init_checkpoint=first.run_dir,
        freeze='conv1,conv2_1/bias',
        steps=4,
    )
    with caplog.at_level('INFO', logger='gitloss'):
        fit(second)
    assert (
        'fresh: logits/kernel, logits/bias, center_loss/centers, center_loss/updates' in caplog.text
    )
    before, after = weights_of(first, 12), weights_of(second, 4)
    for name in ('conv1_1/kernel', 'conv1_1/bias', 'conv2_1/bias', 'preprocess/mean_image'):
        np.testing.assert_array_equal(before[name], after[name])
    moved = np.abs(before['conv2_1/kernel'] - after['conv2_1/kernel']).max()
    # Four steps of Adam at 0.001 move a weight by 0.004 at most; a fresh start would be off by 0.1.
    assert 0 < moved < 0.01
    assert after['logits/kernel'].shape == (2, 3)
    assert 'conv1_1/kernel/Adam' not in after


def test_fine_tuning_with_another_head(tmp_path, caplog):
    """A checkpoint of ArcFace has no PReLU and no bias: they start afresh, everything else is
    loaded.
    """
    first = toys.options(tmp_path, exp_save_dir=str(tmp_path / 'first'), head='arcface')
    fit(first)
    with caplog.at_level('INFO', logger='gitloss'):
        fit(toys.options(tmp_path, init_checkpoint=first.run_dir))
    assert caplog.text.count('; fresh: prelu/alpha, logits/bias\n') == 1


@pytest.mark.parametrize(
    'change, said',
    [
        (
            {'freeze': 'conv9'},
            "--freeze: expected patterns of variable names, conv1_1, .* Received: 'conv9', which "
            'matches none',
        ),
        ({'freeze': '*'}, '--freeze: expected to leave a variable to train'),
        (
            {'init_checkpoint': '/no/such/run'},
            "--init_checkpoint: expected a checkpoint, .* Received: '/no/such/run'",
        ),
    ],
)
def test_fine_tuning_mistakes_are_named(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        fit(toys.options(tmp_path, **change))
    assert not (tmp_path / 'run').exists()


def test_weights_of_another_network_are_refused(tmp_path):
    first = toys.options(tmp_path, exp_save_dir=str(tmp_path / 'first'))
    fit(first)
    with pytest.raises(
        ValueError, match=r'--init_checkpoint: expected conv1_1/kernel of shape \[5, 5, 1, 32\]'
    ):
        fit(toys.options(tmp_path, model='lenet_pp', init_checkpoint=first.run_dir))
