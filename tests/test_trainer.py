"""The trainer on a tiny data set, against NumPy where a test claims a number."""

import json
import os

import numpy as np
import pytest

import toys
from gitloss import data
from gitloss.backend import tf
from helpers import operations_behind
from runs import Watch, trainer_of

ADAM_SLOTS = ['beta1_power', 'beta2_power']


def test_total_is_the_weighted_sum_of_the_parts(tmp_path):
    watch = Watch()
    trainer_of(toys.options(tmp_path, lambda_c=0.5, lambda_g=3.0), [watch]).fit()
    assert len(watch.logs) == 12
    for logs in watch.logs:
        assert logs['loss'] == pytest.approx(
            logs['softmax_loss'] + 0.5 * logs['center_loss'] + 3.0 * logs['git_loss'], rel=1e-6
        )


def test_centers_follow_the_papers_rule_and_each_step_reads_the_centers_before_it(tmp_path):
    """The embeddings of every step are fetched. NumPy updates its own centers by Wen et al., eq. 4,
    and computes the center loss of each step from the centers *before* the update: mean((x - c)^2).
    Four steps, so three of them start from updated centers.
    """
    settings = toys.options(tmp_path, steps=4)
    dataset = data.load('mnist', settings.data_folder)
    stream = data.BatchStream(dataset.train, 16, settings.seed)

    class Centers(Watch):
        def on_train_end(self, logs=None):
            self.final = self.handle.center_rows(np.arange(4))

    watch = Centers(lambda handle: {'embeddings': handle.net.embeddings})
    trainer = trainer_of(settings, [watch], dataset)
    trainer.fit()
    centers = np.zeros((4, 2))
    for step, logs in enumerate(watch.logs):
        labels, x = stream.batch(step)[1], logs['embeddings'].astype(np.float64)
        assert logs['center_loss'] == pytest.approx(np.mean((x - centers[labels]) ** 2), rel=1e-5)
        moved = centers.copy()
        for k in range(4):
            chosen = x[labels == k]
            moved[k] -= 0.5 * (centers[k] - chosen).sum(axis=0) / (1 + len(chosen))
        centers = moved
    np.testing.assert_allclose(watch.final, centers, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    'head, lambda_c, lambda_g',
    [
        ('softmax', 1.0, 1.0),
        ('softmax', 1.0, 0.0),
        ('softmax', 0.0, 0.0),
        ('arcface', 0.0, 0.0),
        ('arcface', 1.0, 1.0),
        ('cosface', 0.0, 0.0),
        ('cosface', 0.5, 2.0),
    ],
)
def test_head_and_weights_choose_the_loss(tmp_path, head, lambda_c, lambda_g):
    """The total is the weighted sum of the terms; a term of weight 0 is logged all the same. Every
    loss falls.
    """
    watch = Watch()
    settings = toys.options(
        tmp_path,
        head=head,
        lambda_c=lambda_c,
        lambda_g=lambda_g,
        steps=30,
        embedding_dim=8,
        learning_rate=0.003,
    )
    trainer_of(settings, [watch]).fit()
    for logs in watch.logs:
        total = logs['softmax_loss'] + lambda_c * logs['center_loss'] + lambda_g * logs['git_loss']
        assert logs['loss'] == pytest.approx(total, rel=1e-5)
        assert np.isfinite(logs['git_loss']) and logs['center_loss'] >= 0
    assert np.mean([logs['loss'] for logs in watch.logs[-5:]]) < 0.8 * np.mean(
        [logs['loss'] for logs in watch.logs[:5]]
    )


@pytest.mark.parametrize('name', ['loss', 'learning_rate', 'accuracy', 'images_per_sec'])
def test_a_callback_may_not_fetch_under_a_name_of_the_trainer(tmp_path, name):
    watch = Watch(lambda handle: {name: handle.net.embeddings})
    with pytest.raises(
        ValueError,
        match='fetches: expected names that no other callback and no log of a step uses. '
        f'Received: {name} from Watch',
    ):
        trainer_of(toys.options(tmp_path), [watch]).fit()
    assert watch.logs == []


def test_diagnostics_of_a_step(tmp_path):
    """git_floor of a batch with n_k samples of class k is sum n_k^2 / m^2 (elementwise). The drift
    of the first step, with all centers at zero, is the mean over the present classes of |alpha
    sum_i x_i / (1 + n_k)|, alpha = 0.5. 16 samples are counted.
    """
    settings = toys.options(tmp_path, steps=1)
    dataset = data.load('mnist', settings.data_folder)

    class Counting(Watch):
        def on_train_end(self, logs=None):
            self.moved = self.handle.centers_moved()
            self.counts = self.handle.session.run(self.handle.net.center_table.updates)

    watch = Counting(lambda handle: {'embeddings': handle.net.embeddings})
    trainer_of(settings, [watch], dataset).fit()
    labels, logs = data.BatchStream(dataset.train, 16, 1).batch(0)[1], watch.logs[0]
    sizes = np.bincount(labels, minlength=4)
    moves = [
        np.linalg.norm(0.5 * logs['embeddings'][labels == k].sum(axis=0) / (1 + sizes[k]))
        for k in np.unique(labels)
    ]
    assert logs['git_floor'] == pytest.approx((sizes**2).sum() / 16.0**2)
    assert logs['center_drift'] == pytest.approx(np.mean(moves), rel=1e-5)
    assert watch.counts.tolist() == sizes.tolist()
    assert watch.moved == np.mean(sizes > 0)


def test_two_runs_from_one_seed_are_equal_to_the_last_bit(tmp_path):
    losses = []
    for name in ('a', 'b'):
        watch = Watch()
        trainer_of(toys.options(tmp_path, exp_save_dir=str(tmp_path / name)), [watch]).fit()
        losses.append([logs['loss'] for logs in watch.logs])
    assert losses[0] == losses[1] and len(set(losses[0])) == 12


def test_measurements_come_every_n_steps_and_at_the_end(tmp_path):
    """10 steps, every 4: after steps 4, 8 and 10; train_loss is the mean over the steps since the
    measurement before.
    """

    class Epochs(Watch):
        seen = ()

        def on_epoch_end(self, epoch, logs=None):
            self.seen += ((epoch, logs['step'], logs['train_loss'], logs['train_acc']),)

    watch = Epochs()
    trainer_of(toys.options(tmp_path, steps=10), [watch]).fit()
    assert [entry[:2] for entry in watch.seen] == [(1, 4), (2, 8), (3, 10)]
    for (_, _, loss, accuracy), part in zip(
        watch.seen, (watch.logs[:4], watch.logs[4:8], watch.logs[8:])
    ):
        assert loss == pytest.approx(np.mean([logs['loss'] for logs in part]))
        assert accuracy == pytest.approx(np.mean([logs['accuracy'] for logs in part]))


def test_it_learns(tmp_path):
    """Four bright blocks in noise; chance is 0.25."""
    from callbacks.evaluation import Evaluation

    settings = toys.options(
        tmp_path, steps=120, update_centers=120, embedding_dim=8, learning_rate=0.003
    )
    dataset = data.load('mnist', settings.data_folder)
    logs = trainer_of(
        settings, [Evaluation(dataset.valid, final_source=dataset.test)], dataset
    ).fit()
    assert logs['valid_acc'] == 1.0 and logs['test_acc'] > 0.95


def test_the_training_graph_has_static_shapes(tmp_path):
    """A rule of the NPU: all shapes that the train op needs are known before the run (except those
    the iterator needs, which is work of the host).
    """
    trainer = trainer_of(toys.options(tmp_path))
    trainer.fit()
    host = ('IteratorGetNext', 'IteratorV2', 'OptimizeDataset', 'PrefetchDataset')
    seen = operations_behind([trainer.runtime.net.train_op], lambda op: op.type in host)
    open_shapes = [
        tensor.name for op in seen for tensor in op.outputs if not tensor.shape.is_fully_defined()
    ]
    assert len(seen) > 200 and open_shapes == []
    assert not {op.type for op in seen} & {'Unique', 'UniqueWithCounts', 'PyFunc', 'EagerPyFunc'}


def test_names_in_checkpoints_are_stable(tmp_path):
    from callbacks.checkpoint import Checkpoint
    from test_backbones import MNIST_CNN_WEIGHTS

    trainer_of(toys.options(tmp_path, model='mnist_cnn'), [Checkpoint()]).fit()
    path = os.path.join(str(tmp_path), 'run', 'ckpt', 'step-00000012', 'model')
    names = {name for name, _ in tf.train.list_variables(path)}
    weights = [name for name, _ in MNIST_CNN_WEIGHTS]
    slots = [
        name + slot
        for name in weights
        if not name.startswith('preprocess')
        for slot in ('/Adam', '/Adam_1')
    ]
    assert names == set(
        weights
        + slots
        + ADAM_SLOTS
        + ['center_loss/centers', 'center_loss/updates', 'global_step', 'learning_rate']
    )


def test_options_are_written_beside_the_run(tmp_path):
    settings = toys.options(tmp_path)
    trainer_of(settings).fit()
    with open(os.path.join(str(tmp_path), 'run', 'options.json')) as file:
        assert json.load(file) == settings.as_dict()
