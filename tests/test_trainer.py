"""The trainer on a tiny data set, against NumPy where a number is claimed."""

import json
import os

import numpy as np
import pytest

import toys
from callbacks.base import Callback
from gitloss import data
from gitloss.backend import tf
from gitloss.errors import TrainingError
from helpers import pixels
from trainers import checkpoints, devices
from trainers.engine.trainer import Trainer

ADAM_SLOTS = ['beta1_power', 'beta2_power']


def trainer_of(settings, callbacks=()):
    return Trainer(
        settings,
        data.load('mnist', settings.data_folder),
        list(callbacks),
        devices.choose(settings),
    )


class Watch(Callback):
    """Keeps the logs of every step and, through fetches, tensors by name."""

    def __init__(self, tensors=None):
        self.logs, self.tensors = [], tensors

    def fetches(self, step):
        return self.tensors(self.handle) if self.tensors else {}

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(dict(logs))


def test_total_is_the_weighted_sum_of_the_parts(tmp_path):
    watch = Watch()
    trainer_of(toys.options(tmp_path, lambda_c=0.5, lambda_g=3.0), [watch]).fit()
    assert len(watch.logs) == 12
    for logs in watch.logs:
        assert logs['loss'] == pytest.approx(
            logs['softmax_loss'] + 0.5 * logs['center_loss'] + 3.0 * logs['git_loss'], rel=1e-6
        )


def test_centers_follow_the_papers_rule_and_each_step_reads_the_centers_before_it(tmp_path):
    """Every step's embeddings are fetched; NumPy moves its own centers by Wen et al., eq. 4, and
    computes each step's center loss from the centers *before* the move: mean((x - c)^2). Four
    steps, so three of them start from centers that have moved."""
    settings = toys.options(tmp_path, steps=4)
    dataset = data.load('mnist', settings.data_folder)
    stream = data.BatchStream(dataset.train, 16, settings.seed)

    class Centers(Watch):
        def on_train_end(self, logs=None):
            self.final = self.handle.centers()

    watch = Centers(lambda handle: {'embeddings': handle.net.embeddings})
    trainer = Trainer(settings, dataset, [watch], devices.choose(settings))
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
    """The total is the weighted sum of the parts; one of weight 0 is logged all the same. Every
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
    """git_floor of a batch with n_k samples of class k is sum n_k^2 / m^2 (elementwise); the drift
    of the first step, from centers at zero, is the mean over the classes present of |alpha sum_i
    x_i / (1 + n_k)|, alpha = 0.5; 16 samples were counted."""
    settings = toys.options(tmp_path, steps=1)
    dataset = data.load('mnist', settings.data_folder)

    class Counting(Watch):
        def on_train_end(self, logs=None):
            self.counts = self.handle.center_updates()

    watch = Counting(lambda handle: {'embeddings': handle.net.embeddings})
    Trainer(settings, dataset, [watch], devices.choose(settings)).fit()
    labels, logs = data.BatchStream(dataset.train, 16, 1).batch(0)[1], watch.logs[0]
    sizes = np.bincount(labels, minlength=4)
    moves = [
        np.linalg.norm(0.5 * logs['embeddings'][labels == k].sum(axis=0) / (1 + sizes[k]))
        for k in np.unique(labels)
    ]
    assert logs['git_floor'] == pytest.approx((sizes**2).sum() / 16.0**2)
    assert logs['center_drift'] == pytest.approx(np.mean(moves), rel=1e-5)
    assert watch.counts.tolist() == sizes.tolist()


def test_a_loss_that_is_not_finite_ends_the_training_and_names_the_step(tmp_path):
    """Adam with a rate of 1e30 throws the weights out of range at its first steps."""
    from callbacks.checkpoint import Checkpoint
    from callbacks.guards import LossGuard

    with pytest.raises(
        TrainingError, match=r'step \d+: expected a finite loss. Received: loss (nan|inf)'
    ):
        trainer_of(toys.options(tmp_path, learning_rate=1e30), [LossGuard(), Checkpoint()]).fit()


def test_labels_beyond_the_classes_are_refused_before_the_training(tmp_path):
    settings = toys.options(tmp_path)
    dataset = data.load('mnist', settings.data_folder)
    with pytest.raises(
        ValueError,
        match=r'^labels of the training set: expected 0 to 2 for 3 classes\. Received: 0 to 3$',
    ):
        Trainer(
            settings,
            dataset._replace(spec=dataset.spec._replace(num_classes=3)),
            [],
            devices.choose(settings),
        )


def test_a_label_that_goes_bad_in_the_run_ends_it_at_its_step_and_leaves_the_checkpoint(tmp_path):
    """On a CPU the gather of the center finds it: at step 6 of batches of 16, the 5 * 16th sample
    of the stream is the first bad one.
    """
    settings = toys.options(tmp_path, save_every='4')
    dataset = data.load('mnist', settings.data_folder)
    first = data.BatchStream(dataset.train, 16, settings.seed)
    labels = dataset.train.labels.copy()
    fine = set(np.concatenate([first.indices(step) for step in range(5)]))
    bad = next(number for number in first.indices(5) if number not in fine)

    class Spoil(Callback):
        def on_train_begin(self, logs=None):
            labels[bad] = 99

    trainer = Trainer(
        settings,
        dataset._replace(train=data.ArraySource(pixels(dataset.train), labels)),
        [Spoil()],
        devices.choose(settings),
    )
    with pytest.raises(TrainingError, match=r'^step 6: .*99'):
        trainer.fit()
    assert checkpoints.CheckpointStore(os.path.join(settings.run_dir, 'ckpt')).newest().step == 4


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
    logs = Trainer(
        settings,
        dataset,
        [Evaluation(dataset.valid, final_source=dataset.test)],
        devices.choose(settings),
    ).fit()
    assert logs['valid_acc'] == 1.0 and logs['test_acc'] > 0.95


def test_stop_ends_the_training_with_a_measurement(tmp_path):
    class Stopper(Callback):
        steps = ()

        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                self.handle.stop('enough')

        def on_epoch_end(self, epoch, logs=None):
            self.steps += (logs['step'],)

    stopper = Stopper()
    assert trainer_of(toys.options(tmp_path), [stopper]).fit()['step'] == 5
    assert stopper.steps == (4, 5)


def test_a_failing_callback_still_closes_the_others(tmp_path):
    class Failing(Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError('broken')

    class Closing(Callback):
        closed = False

        def close(self):
            self.closed = True

    closing = Closing()
    with pytest.raises(RuntimeError, match='broken'):
        trainer_of(toys.options(tmp_path), [Failing(), closing]).fit()
    assert closing.closed


def test_the_training_graph_has_static_shapes(tmp_path):
    """An NPU rule: whatever the train op needs has shapes known before the run (behind the
    iterator, which is host work).
    """
    trainer = trainer_of(toys.options(tmp_path))
    trainer.fit()
    seen, waiting, open_shapes = set(), [trainer.runtime.net.train_op], []
    while waiting:
        op = waiting.pop()
        if op in seen or op.type in (
            'IteratorGetNext',
            'IteratorV2',
            'OptimizeDataset',
            'PrefetchDataset',
        ):
            continue
        seen.add(op)
        waiting.extend([tensor.op for tensor in op.inputs] + list(op.control_inputs))
        open_shapes += [tensor.name for tensor in op.outputs if not tensor.shape.is_fully_defined()]
    assert len(seen) > 200 and open_shapes == []
    assert not {op.type for op in seen} & {'Unique', 'UniqueWithCounts', 'PyFunc', 'EagerPyFunc'}


def test_names_in_checkpoints_are_stable(tmp_path):
    from callbacks.checkpoint import Checkpoint
    from test_backbones import MNIST_CNN_WEIGHTS

    trainer_of(toys.options(tmp_path), [Checkpoint()]).fit()
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
