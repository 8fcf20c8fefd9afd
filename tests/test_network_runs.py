"""Short runs of the networks for faces on small grey images: training, checkpoint, evaluation and
export; the NPU's fake; several workers.
"""

import os

import numpy as np
import pytest

import crew
import exports
import few_blocks
import toys
from callbacks.checkpoint import Checkpoint
from fake_npu import job, on_the_fake
from gitloss import data
from gitloss.backend import tf
from gitloss.layers import BatchNormalization
from helpers import Losses, operations_behind, relative_error
from normalised import newest
from survival import tensors
from trainers import devices
from trainers.engine import runtime
from trainers.engine.graph import TrainingGraph
from trainers.engine.trainer import Trainer

# {network: smallest height and width of an image}
SIZES = {
    'mobilefacenet': 16,
    'iresnet18': 16,
    'inception_resnet_v1': 75,
    'applications:MobileNet': 32,
}


@pytest.fixture(autouse=True)
def _few_blocks(monkeypatch):
    few_blocks.install(monkeypatch.setattr)


def options(folder, name, **changes):
    """Two steps of eight images, with all that goes around the embedding layer."""
    pixels = SIZES.get(name, 8)
    path = os.path.join(str(folder), f'data{pixels}')
    if not os.path.isdir(path):
        toys.write_mnist(path, train=24, test=8, size=pixels)
    settings = dict(
        model=name,
        data_path=path,
        exp_save_dir=os.path.join(str(folder), name),
        steps=2,
        batch_size=8,
        update_centers=2,
        embedding_dim=4,
        dropout=0.2,
        embedding_norm=True,
        normalize=True,
        preprocessing='centered',
        head='arcface',
        git_loss_form='pairwise',
        evaluate=False,
    )
    return toys.options(folder, **dict(settings, **changes))


@pytest.mark.parametrize('name', SIZES)
def test_it_trains_and_its_export_gives_the_embeddings_of_an_evaluation(
    tmp_path, monkeypatch, name
):
    """The centers are 0 before the first step, and the embeddings have length 1: the first center
    loss is 1 / 2. The exported graph, which takes raw pixels, gives the embeddings of a sweep to
    1e-4 (constants are folded), and these have length 1 too. A momentum of 0 makes the statistics
    of the last batch the moving averages: after two steps inference would else give one embedding
    for all images.
    """
    momentum = property(lambda layer: 0.0, lambda layer, value: None)
    monkeypatch.setattr(BatchNormalization, 'momentum', momentum, raising=False)
    settings, seen = options(tmp_path, name, optimizer='sgd'), CenterLosses()
    dataset = data.load('mnist', settings.data_folder)
    dataset = data.preprocessed(dataset, settings.preprocessing)
    Trainer(settings, dataset, [seen, Checkpoint()], devices.choose(settings)).fit()
    assert len(seen.seen) == 2 and np.isfinite(seen.seen).all()
    assert seen.centers[0] == pytest.approx(0.5, rel=1e-5)
    checkpoint, test = newest(settings), dataset.test
    with runtime.evaluation(checkpoint, settings, devices.choose(settings)) as handle:
        swept = np.concatenate([batch[0] for batch in handle.sweep(test)])
    definition = exports.frozen(checkpoint, 8)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(definition, name='')
        pixels = test.images(np.arange(8))
        found = session.run('embeddings:0', {'input_images:0': pixels})
    np.testing.assert_allclose(np.linalg.norm(swept, axis=1), np.ones(8), rtol=1e-5)
    assert np.ptp(swept, axis=0).max() > 0.1
    assert relative_error(found, swept) < 1e-4


class CenterLosses(Losses):
    """Records the center loss too, in `centers`."""

    def __init__(self):
        super().__init__()
        self.centers = []

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self.centers.append(logs['center_loss'])


def test_mobilefacenet_trains_on_the_npu(tmp_path):
    """On its fake, which refuses a tensor without a static shape and whatever else the card has
    not; with loss scaling, in a sunk loop of two steps.
    """
    sunk = {'loss_scale': 'dynamic', 'adam_epsilon': 1e-4, 'iterations_per_loop': 2}
    (result,) = on_the_fake(
        job(options(tmp_path, 'mobilefacenet', device='npu', **sunk)), kind='few blocks'
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('name', ['iresnet18', 'inception_resnet_v1', 'applications:MobileNet'])
def test_their_graphs_for_the_npu_are_static(tmp_path, name):
    """As the fake demands: all shapes of what a step runs are static, but for the buffer of the
    fused normalisation, whose shape CANN knows, and for shapes computed of constants.
    """
    settings = options(tmp_path, name)
    dataset = data.load('mnist', settings.data_folder)
    device = devices.Device('npu', '', None, True)
    with tf.Graph().as_default():
        net = TrainingGraph(settings, dataset.spec, device, source=dataset.train)
        ops = operations_behind([net.train_op], lambda op: op.type.startswith('Iterator'))
    is_open = [
        (op.type, output.value_index)
        for op in ops
        for output in op.outputs
        if op.type != 'BroadcastGradientArgs' and not output.shape.is_fully_defined()
    ]
    assert set(is_open) == {('FusedBatchNormV3', 5)}
    assert len(ops) > 500


def test_two_workers_normalise_embeddings_as_one(tmp_path):
    """With dropout before and length 1 after the normalisation, over the global batch: all weights
    agree to 1e-4 of their largest value.
    """
    shared = dict(optimizer='sgd', learning_rate=0.01)
    alone = options(tmp_path, 'mnist_cnn', **shared)
    crew.trainer_of(alone).fit()
    together = options(
        tmp_path, 'mnist_cnn', exp_save_dir=str(tmp_path / 'two'), check_replicas=1, **shared
    )
    with crew.Crew(toys.flags_of(together), 2, tmp_path / 'logs') as workers:
        assert workers.wait() == [0, 0], workers.printed(1)
    one, two = tensors(newest(alone)), tensors(newest(together))
    assert sorted(one) == sorted(two) and 'embedding_norm/moving_mean' in one
    off = {name: relative_error(two[name], one[name]) for name in one}
    assert max(off.values()) < 1e-4, off
