"""How a training ends before its last step: bad losses and labels, a stop, a broken callback."""

import os

import numpy as np
import pytest

import toys
from callbacks.base import Callback
from gitloss import data
from gitloss.errors import TrainingError
from helpers import pixels
from runs import trainer_of
from trainers import checkpoints


def test_a_loss_that_is_not_finite_ends_the_training_and_names_the_step(tmp_path):
    """Adam with a rate of 1e30 makes the weights overflow in its first steps."""
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
        trainer_of(settings, [], dataset._replace(spec=dataset.spec._replace(num_classes=3)))


def test_a_label_that_goes_bad_in_the_run_ends_it_at_its_step_and_leaves_the_checkpoint(tmp_path):
    """On a CPU the gather of the center detects it: at step 6 with batches of 16, because sample 5
    * 16 of the stream is the first bad one.
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

    trainer = trainer_of(
        settings, [Spoil()], dataset._replace(train=data.ArraySource(pixels(dataset.train), labels))
    )
    with pytest.raises(TrainingError, match=r'^step 6: .*99'):
        trainer.fit()
    assert checkpoints.CheckpointStore(os.path.join(settings.run_dir, 'ckpt')).newest().step == 4


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
