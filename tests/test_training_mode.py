"""Whole runs of a network with batch normalisation, dropout and weight decay."""

import json

import numpy as np
import pytest

import crew
import exports
import toys
from callbacks.base import Callback
from callbacks.history import History
from gitloss import data
from gitloss.backbones import BACKBONES
from gitloss.backend import tf
from helpers import Losses, all_nodes, collectives_of
from normalised import MOMENTUM, NETWORK, WORKER, newest, options, train
from runs import StopAt
from survival import tensors
from trainers import devices, evaluate
from trainers.engine.graph import TrainingGraph
from trainers.launch import free_addresses
from trainers.workers.engines import Collectives


@pytest.fixture(autouse=True)
def _network(monkeypatch):
    monkeypatch.setitem(BACKBONES, 'normalised', NETWORK)


def test_moving_averages_equal_a_replay_in_numpy(tmp_path):
    """20 steps. Both layers see x = pixels / 255 - mean image, which no weight changes:
    m <- 0.9 m + 0.1 mean(x), v <- 0.9 v + 0.1 var(x) n / (n - 1), from 0 and 1, over the n values
    of a channel in the batch: 16 * 64 for images of one channel, 16 for a pixel.
    """
    settings = options(tmp_path, steps=20, update_centers=20)
    _, checkpoint = train(settings)
    found = tensors(checkpoint)
    dataset = data.load('mnist', settings.data_folder)
    stream = data.BatchStream(dataset.train, 16, settings.seed)
    for name, shape in (('of_images', (-1, 1)), ('of_pixels', (16, -1))):
        mean, variance = 0.0, 1.0
        for step in range(20):
            pixels = dataset.train.images(stream.indices(step)).astype(np.float64)
            x = (pixels / 255.0 - dataset.spec.preprocessing.mean).reshape(shape)
            mean = MOMENTUM * mean + (1 - MOMENTUM) * x.mean(0)
            variance = MOMENTUM * variance + (1 - MOMENTUM) * x.var(0, ddof=1)
        np.testing.assert_allclose(found[name + '/moving_mean'], mean, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found[name + '/moving_variance'], variance, rtol=1e-5)


def test_weight_decay_is_a_term_of_the_training_alone(tmp_path):
    """Its value at the first step is 1e-3 / 2 sum ||kernel||^2 over the kernels as they were, and
    the total is the sum of all four terms. Validation has no such term.
    """
    first = Kernels()
    logs, _ = train(options(tmp_path, steps=4, lambda_c=0.5, lambda_g=2.0), first)
    terms = first.logs
    wanted = 0.5e-3 * sum(np.sum(np.square(kernel, dtype=np.float64)) for kernel in first.before)
    assert len(first.before) == 4  # conv, dense, embeddings, logits
    assert terms['weight_decay_loss'] == pytest.approx(wanted, rel=1e-6)
    total = terms['softmax_loss'] + 0.5 * terms['center_loss'] + 2.0 * terms['git_loss']
    assert terms['loss'] == pytest.approx(total + wanted, rel=1e-6)
    assert 'train_weight_decay_loss' in logs and 'valid_weight_decay_loss' not in logs


class Kernels(Callback):
    """`before`: the kernels before the first step; `logs`: that step's."""

    logs = None

    def build(self):
        names = ('conv', 'dense', 'embeddings', 'logits')
        self._kernels = [
            v for v in tf.trainable_variables() if v.name in [f'{n}/kernel:0' for n in names]
        ]

    def on_train_begin(self, logs=None):
        self.before = self.handle.session.run(self._kernels)

    def on_train_batch_end(self, batch, logs=None):
        self.logs = self.logs or dict(logs)


def test_without_decay_there_is_no_term(tmp_path):
    logs, _ = train(options(tmp_path, steps=4, weight_decay=0.0))
    assert 'train_weight_decay_loss' not in logs


def test_a_resumed_run_equals_an_undisturbed_one_to_the_last_bit(tmp_path):
    """Dropout masks and moving averages included."""
    whole = Losses()
    settings = options(tmp_path, exp_save_dir=str(tmp_path / 'whole'))
    _, wanted = train(settings, whole)
    settings = options(tmp_path, exp_save_dir=str(tmp_path / 'parts'))
    with pytest.raises(KeyboardInterrupt):
        train(settings, StopAt(8))
    rest = Losses()
    _, found = train(settings, rest)
    assert rest.seen == whole.seen[-len(rest.seen) :] and len(rest.seen) < 12
    one, other = tensors(wanted), tensors(found)
    assert sorted(one) == sorted(other)
    assert not [name for name in one if one[name].tobytes() != other[name].tobytes()]


def test_frozen_normalisation_rests(tmp_path):
    """A normalization layer that is frozen whole uses its moving averages and does not update them;
    one frozen in part goes on updating.
    """
    frozen = 'of_features,of_pixels/gamma'
    before = tensors(train(options(tmp_path, steps=1, freeze=frozen))[1])
    after = tensors(train(options(tmp_path, steps=12, freeze=frozen))[1])
    for part in ('gamma', 'beta', 'moving_mean', 'moving_variance'):
        name = f'of_features/{part}'
        initial = float(part in ('gamma', 'moving_variance'))
        np.testing.assert_array_equal(after[name], np.full(4, initial))
    np.testing.assert_array_equal(after['of_pixels/gamma'], np.ones(64))
    for part in ('beta', 'moving_mean'):
        assert (after[f'of_pixels/{part}'] != before[f'of_pixels/{part}']).any()


def test_an_overflow_leaves_the_moving_averages_alone(tmp_path):
    """An infinite bias makes the embeddings infinite: no weight, no center and no moving average
    changes.
    """
    settings = options(tmp_path, loss_scale='dynamic')
    dataset = data.load('mnist', settings.data_folder)
    with tf.Graph().as_default():
        net = TrainingGraph(settings, dataset.spec, devices.choose(settings), source=dataset.train)
        averages = [v for v in tf.global_variables() if '/moving_' in v.name]
        assert len(averages) == 6
        bias = next(v for v in net.model.weights if v.name == 'embeddings/bias:0')
        value = tf.placeholder(tf.float32, bias.shape)
        put = tf.assign(bias, value)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            session.run(net.iterator.initializer, {net.first_step: 0})
            session.run(net.train_op)
            before, kept = session.run([averages, bias])
            session.run(put, {value: np.full(kept.shape, np.inf)})
            session.run(net.train_op)
            after, step = session.run([averages, net.global_step])
            assert step == 1
            for one, other in zip(before, after):
                np.testing.assert_array_equal(one, other)
            session.run(put, {value: kept})
            session.run(net.train_op)
            moved, step = session.run([averages, net.global_step])
    assert step == 2 and all((one != other).any() for one, other in zip(before, moved))


def test_an_export_infers_what_an_evaluation_does(tmp_path, capsys):
    """The frozen graph on the test images, as trainers.evaluate sees them: the same accuracy."""
    settings = options(tmp_path, steps=12)
    _, checkpoint = train(settings)
    flags = [f'--ckpt_path={settings.run_dir}', f'--data_path={settings.data_path}', '--device=cpu']
    assert evaluate.main(flags + ['--batch_size=8']) == 0
    said = json.loads(capsys.readouterr().out)
    definition = exports.frozen(checkpoint, 40)
    test = data.load('mnist', settings.data_folder).test
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(definition, name='')
        found = session.run('predictions:0', {'input_images:0': test.images(np.arange(40))})
    assert np.mean(found == test.labels) == pytest.approx(said['test']['acc'], abs=1e-9)


def test_inference_holds_no_phase_no_conditional_and_no_dropout(tmp_path):
    """In the export and in the graph of an evaluation."""
    settings = options(tmp_path, steps=4)
    _, checkpoint = train(settings)
    definition = exports.frozen(checkpoint, 1)
    spec = data.load('mnist', settings.data_folder).spec
    with tf.Graph().as_default() as graph:
        TrainingGraph(settings, spec, devices.choose(settings))
    nodes = list(definition.node) + all_nodes(graph)
    kinds = ('Switch', 'Merge', 'If', 'StatelessIf', 'FusedBatchNorm', 'StatelessRandom')
    assert not [node.name for node in nodes if node.op.startswith(kinds)]
    assert not [node.name for node in nodes if 'learning_phase' in node.name]


@pytest.mark.parametrize('statistics', ['global', 'local'])
def test_two_workers_train_as_one(tmp_path, statistics):
    """20 steps with the statistics of the global batch: kernels and moving variances agree to 1e-5
    of their largest value; moving means, which may be anywhere near 0, to 1e-5. With the statistics
    of each worker's part the run differs, which shows that the flag has an effect; the replicas
    stay equal all the same, as check_replicas verifies.
    """
    shared = dict(
        steps=20, update_centers=20, norm_statistics=statistics, check_replicas=5, evaluate=False
    )
    alone = options(tmp_path, exp_save_dir=str(tmp_path / 'one'), **shared)
    train(alone, History())
    together = options(tmp_path, exp_save_dir=str(tmp_path / 'two'), **shared)
    with crew.Crew(toys.flags_of(together), 2, tmp_path / 'logs', program=WORKER) as workers:
        assert workers.wait() == [0, 0], workers.printed(1)
    one, two = tensors(newest(alone)), tensors(newest(together))
    assert sorted(one) == sorted(two)
    off = {}
    for name, value in one.items():
        if '/moving_' in name or name.endswith('kernel'):
            scale = 1.0 if name.endswith('mean') else np.abs(value).max()
            off[name] = np.abs(value - two[name]).max() / scale
    assert len(off) == 10 and bool(max(off.values()) < 1e-5) is (statistics == 'global'), off


def test_between_gpus_the_statistics_are_gathered_in_one_order(tmp_path):
    """Two of the layers are in branches that nothing else orders. A step gathers three statistics
    and the embeddings; it reduces the gradient of the one statistic that has a trained layer before
    it, and the gradients of the weights: 6. A sweep gathers the embeddings alone.
    """
    settings = options(tmp_path)
    group = Collectives(free_addresses(2), 1, tf.ConfigProto(), 20.0, 'gpu')
    dataset = data.load('mnist', settings.data_folder)
    with tf.Graph().as_default():
        net = TrainingGraph(settings, dataset.spec, devices.choose(settings), group, dataset.train)
        step = collectives_of([net.train_op, net.step_fetches])
        sweep = collectives_of(net.eval_fetches)
    assert len(step) == 6 and len(sweep) == 1
    for one in step:
        assert all(one in step[other] or other in step[one] for other in step)
