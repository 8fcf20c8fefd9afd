"""A loss that is not finite or beyond its bound: the run stops, or goes back to its checkpoint."""

import os

import numpy as np
import pytest

import toys
from callbacks.base import Callback
from callbacks.checkpoint import Checkpoint
from callbacks.guards import LossGuard
from callbacks.history import History
from gitloss.backend import tf
from gitloss.errors import TrainingError
from runs import Poison, fit, history_of, trainer_of, weights_of
from trainers import checkpoints


def fit_poisoned(settings, poison):
    guard = LossGuard(settings.max_loss, settings.on_nan == 'rollback')
    return trainer_of(settings, [poison, guard, History(), Checkpoint()]).fit()


def test_nan_stops_and_leaves_the_last_checkpoint(tmp_path):
    settings = toys.options(tmp_path)
    with pytest.raises(
        TrainingError, match='step 6: expected a finite loss. Received: loss nan, softmax_loss '
    ):
        fit_poisoned(settings, Poison(6))
    store = checkpoints.CheckpointStore(os.path.join(settings.run_dir, 'ckpt'))
    assert store.newest().step == 4


def test_rollback_goes_back_with_half_the_rate(tmp_path):
    """NaN at step 6 twice: back to step 4 each time, so steps 5 and 6 run three times; the final
    rate is 0.001 * 0.25.
    """
    settings = toys.options(tmp_path, on_nan='rollback')
    poison = Poison(6, times=2)
    fit_poisoned(settings, poison)
    assert poison.seen == [1, 2, 3, 4, 5, 6, 5, 6, 5, 6, 7, 8, 9, 10, 11, 12]
    assert weights_of(settings, 12)['learning_rate'] == np.float32(0.001) * np.float32(0.25)
    assert [row['step'] for row in history_of(settings)] == [4, 8, 12]


def test_rollback_gives_up_in_the_end(tmp_path):
    with pytest.raises(TrainingError, match='rolled back 10 times already'):
        fit_poisoned(toys.options(tmp_path, on_nan='rollback'), Poison(6, times=100))


def test_rollback_without_a_checkpoint_stops(tmp_path):
    with pytest.raises(TrainingError, match='step 2: .*there is no checkpoint to go back to'):
        fit_poisoned(toys.options(tmp_path, on_nan='rollback'), Poison(2))


def test_a_loss_beyond_the_bound_counts_as_gone_wrong(tmp_path):
    with pytest.raises(
        TrainingError, match='step 1: expected a loss of at most 0.5. Received: loss '
    ):
        fit(toys.options(tmp_path, max_loss=0.5))


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The loss of step 4 is still finite, but its update breaks the weights, right before the
    measurement saves them.
    """

    class Break(Callback):
        def build(self):
            weight = self.handle.net.model.trainable_weights[0]
            self.op = tf.assign(weight, tf.fill(weight.shape, float('nan')))

        def on_train_batch_end(self, batch, logs=None):
            if batch == 4:
                self.handle.session.run(self.op)

    settings = toys.options(tmp_path)
    with pytest.raises(TrainingError, match='step 4: expected finite weights to save'):
        fit(settings, Break())
    assert not os.path.isdir(os.path.join(settings.run_dir, 'ckpt'))
