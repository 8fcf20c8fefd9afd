"""Short runs in this process, watched, disturbed or broken off, and what is left of them."""

import json
import os

import numpy as np

from callbacks.base import Callback
from callbacks.checkpoint import Checkpoint
from callbacks.guards import LossGuard
from callbacks.history import History
from gitloss import data
from gitloss.backend import tf
from trainers import devices
from trainers.engine.trainer import Trainer


def trainer_of(settings, callbacks=(), dataset=None):
    """A Trainer on the toy data set, or on another one."""
    dataset = dataset or data.load('mnist', settings.data_folder)
    return Trainer(settings, dataset, list(callbacks), devices.choose(settings))


def fit(settings, *extra):
    """Trains with `extra` between the guard and what saves. Returns the last logs."""
    guard = LossGuard(settings.max_loss, settings.on_nan == 'rollback')
    return trainer_of(settings, [guard, *extra, History(), Checkpoint()]).fit()


class StopAt(Callback):
    """Interrupts the run without a chance to save, like a kill."""

    def __init__(self, step):
        self._step = step

    def on_train_batch_end(self, batch, logs=None):
        if batch == self._step:
            raise KeyboardInterrupt


class Poison(Callback):
    """Makes the loss of one step NaN in the logs, `times` times."""

    def __init__(self, step, times=1):
        self.step_number, self.times, self.seen = step, times, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)
        if batch == self.step_number and self.times:
            self.times -= 1
            logs['loss'] = float('nan')


class Does(Callback):
    """Calls a function once: after a step, in a measurement or at the end of the run."""

    def __init__(self, function, when):
        self._function, self._when = function, when

    def on_train_batch_end(self, batch, logs=None):
        if self._when == batch:
            self._function()

    def on_epoch_end(self, epoch, logs=None):
        if self._when == f'measurement {epoch}':
            self._function()

    def on_train_end(self, logs=None):
        if self._when == 'end':
            self._function()


class Watch(Callback):
    """Keeps the logs of every step and, through fetches, tensors by name."""

    def __init__(self, tensors=None):
        self.logs, self.tensors = [], tensors

    def fetches(self, step):
        return self.tensors(self.handle) if self.tensors else {}

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(dict(logs))


def weights_of(settings, step):
    path = os.path.join(settings.run_dir, 'ckpt', f'step-{step:08}', 'model')
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name, _ in tf.train.list_variables(path)}


def history_of(settings):
    with open(os.path.join(settings.run_dir, 'history.jsonl')) as file:
        return [
            {
                name: value
                for name, value in json.loads(line).items()
                if name not in ('seconds', 'images_per_sec')
            }
            for line in file
        ]


def assert_same_run(one, other, step):
    left, right = weights_of(one, step), weights_of(other, step)
    assert set(left) == set(right)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    assert history_of(one) == history_of(other)


def content(folder):
    """{relative path: bytes} of all files; a link counts as its target's name."""
    found = {}
    for place, folders, names in os.walk(str(folder)):
        for path in (os.path.join(place, name) for name in folders + names):
            if os.path.islink(path):
                found[os.path.relpath(path, str(folder))] = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, 'rb') as file:
                    found[os.path.relpath(path, str(folder))] = file.read()
    return found
