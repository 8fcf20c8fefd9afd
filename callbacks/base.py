"""What a callback is, what it may ask of the run, and how a list of them is run.

The hooks bear Keras's names. An *epoch* is the stretch between two measurements (`--update_centers`
steps): `on_epoch_end` is where measurements are made and read. All hooks of a list share one `logs`
dictionary per call, in the order of the list: who measures comes first, who reads comes after.
"""

from __future__ import annotations

from typing import Mapping, Sequence

import numpy as np

from gitloss.errors import HookError, describe, log
from gitloss.metrics import Metric, declaration

_PLAIN = (int, float, str, list, dict, type(None))  # of what history.jsonl and the checkpoints hold


class Handle:
    """The run as callbacks see it; the trainer implements it. This, and nothing else, is what a
    callback may rely on.

    step: steps done so far.
    metrics: {name: Metric} of all that the run and its callbacks declare, from `build` on.
    sweep(split, with_losses=False): forward pass over a Split in order, weights as they are now, in
      batches of the training's size. Yields (embeddings float32 [n, dim], predictions int [n],
      labels int32 [n], losses), where losses is a dictionary of the batch's scalar losses (`loss`,
      `softmax_loss`, `center_loss`, `git_loss`) if asked for, else empty. A last short batch is
      padded with samples from the beginning of the split, which count for its losses and nothing
      else. Several workers
      share the work of each batch and all see all of it: every worker must make the same sweeps.
    centers(): the centers of the center and git losses as they are now: float32 [classes, dim].
    center_updates(): how many samples have moved each center so far: int32 [classes].
    set_centers(values): replaces the centers: float [classes, dim].
    save(metrics=None): writes a checkpoint of this step, with the metrics it is to be judged by.
      Returns its path; OSError if the disk is full.
    save_aside(path, metrics=None): writes a checkpoint of this step into a folder of its own, which
      no run continues from and nothing prunes; it replaces a checkpoint found there. Returns its
      path; OSError if the disk is full, ValueError if there is something else.
    learning_rate: before --schedule and --warmup_steps, as it is now. May be set; a checkpoint
    keeps it.
    rate_variable: the float32 variable behind `learning_rate`, from `build` on.
    session: the tf.Session of the run, from on_train_begin on. The graph is finalized: what is to
    be run was created in `build`. throughput(): {'images_per_sec', 'sec_per_step'} of training
    steps alone, the first one of the process left out. stop(reason): ends the training after this
    step.
    """

    run_dir = ''  # folder of the run's files
    run_name = ''  # its last part, the device number by default
    options = None  # {flag: value}, plain values
    metrics: Mapping[str, Metric] = {}
    steps = 0  # steps of the whole run
    every = 0  # steps between two measurements
    batch_size = 0
    num_classes = 0
    rank, workers, is_chief = (
        0,
        1,
        True,
    )  # several workers: the number of this one, how many, and whether it is the one that writes

    def passed(self, every):
        """Whether the last session.run reached a multiple of `every` steps, or passed one, as a
        sunk loop does after an overflow.
        """
        return self.step % every == 0


class Callback:
    """Does nothing at every hook. `handle` is there from `build` on.

    With several workers every one of them has the list, and what a callback decides it must decide
    alike on all: from logs and sweeps, which are the same everywhere, not from a clock.
    """

    handle = None
    metrics: Sequence[Metric] = ()  # declares what it adds to the logs of a measurement
    chief_only = False  # True: it only writes, and the chief alone has it
    # {name: steps between two of its turns}, for the devices that give control back only every so
    # many steps
    intervals = {}

    def build(self):
        """Create graph operations here: the graph is finalized afterwards."""

    def fetches(self, step):
        """{name: tensor} to be fetched by the `session.run` of step `step`; the values arrive in
        the logs of on_train_batch_end.

        The names must not depend on the step where a new set of fetches means a new compilation
        (NPU).
        """
        return {}

    def on_train_begin(self, logs=None):
        """Once, before the first step."""

    def on_train_batch_begin(self, batch, logs=None):
        """Before step `batch` (counted from 1)."""

    def on_train_batch_end(self, batch, logs=None):
        """After step `batch`, or the last of several with --iterations_per_loop; logs: `loss`,
        `softmax_loss`, `center_loss`, `git_loss`, `git_floor`, `center_drift`, `accuracy` of its
        batch, `learning_rate`, `images_per_sec`, fetched extras."""

    def on_epoch_begin(self, epoch, logs=None):
        """Before the first step after a measurement."""

    def on_test_begin(self, logs=None):
        """Before the sweeps of a measurement."""

    def on_epoch_end(self, epoch, logs=None):
        """At each measurement, numbered from 1; logs: `step`, `train_loss`, `train_acc`, ... and
        what callbacks before added.
        """

    def on_rewind(self, step):
        """The run has gone back to `step`, where its last checkpoint is; `load_state` was called
        before.
        """

    def on_train_end(self, logs=None):
        """Once after the last step of a training that was not broken off; logs: the last
        measurement.
        """

    def close(self):
        """Always the last call, also after an error, if `build` was called: release files and
        threads.
        """

    def state(self):
        """What a checkpoint must keep of this callback: plain JSON values, or None."""
        return None

    def load_state(self, state):
        """Takes back what `state` returned, before on_train_begin."""


def kind(callback):
    """What its state is filed under and its failures are reported as."""
    return getattr(callback, 'wrapped_kind', type(callback).__name__)


def as_callback(thing):
    """A callback of ours as it is, a `tf.keras.callbacks` object in a wrapper.

    Raises:
      ValueError: it is neither, or one of Keras's that cannot work here.
    """
    if isinstance(thing, Callback):
        return thing
    from callbacks.keras import (
        KerasCallback,  # imports TensorFlow, which a list of ours alone does not need
    )

    return KerasCallback(thing)


def _call(callback, hook, *args):
    """One hook of one callback. NumPy scalars that it put into the logs become numbers of Python,
    which JSON can hold.

    Raises:
      HookError: for errors that nothing raises on purpose. TensorFlow's own are the trainer's to
        tell.
    """
    try:
        result = getattr(callback, hook)(*args)
    except (ValueError, OSError, RuntimeError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a user's code raises is told in a line
        if type(error).__module__.startswith('tensorflow.'):
            raise
        raise HookError(f'{kind(callback)}.{hook}: {describe(error)}') from error
    logs = args[-1] if args and isinstance(args[-1], dict) else {}
    for name, value in logs.items():
        if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
            logs[name] = value = value.item()
        if hook in ('on_epoch_end', 'on_train_end') and not isinstance(value, _PLAIN):
            del logs[name]  # what comes after at the end of a run writes the rest
            raise HookError(
                f'{kind(callback)}.{hook}: expected numbers or text in the logs. Received: {name}, of type {type(value).__name__}'
            )
    return result


class CallbackList:
    """Runs hooks in the order of the list; objects of `tf.keras.callbacks` may stand in it as they
    are.

    A failing hook ends the training, with two exceptions: in `on_train_end` and `close` every
    callback gets its turn, and the failures are kept in `failures` for the exit status.
    """

    def __init__(self, callbacks, is_chief=True):
        self.callbacks = [
            callback
            for callback in map(as_callback, callbacks)
            if is_chief or not callback.chief_only
        ]
        self.failures = []
        self._built = []

    def build(self, handle):
        """Raises ValueError where a callback declares something else than metrics."""
        declared = list(handle.metrics.values())
        for callback in self.callbacks:
            try:
                declared += [metric for metric in callback.metrics if metric.name]
            except (TypeError, AttributeError):
                raise ValueError(
                    f'{kind(callback)}.metrics: expected a sequence of gitloss.metrics.Metric. '
                    f'Received: {callback.metrics!r}'
                )
        handle.metrics = declaration.by_name(declared)
        for callback in self.callbacks:
            callback.handle = handle
            self._built.append(callback)
            _call(callback, 'build')

    def fetches(self, step, own=()):
        """What `step` fetches: {name: tensor} of the callbacks, and the trainer's `own`, whose
        names are taken.
        """
        wanted = dict(own)
        for callback in self.callbacks:
            extra = _call(callback, 'fetches', step)
            twice = sorted(name for name in extra if name in wanted or name == 'images_per_sec')
            if twice:
                raise ValueError(
                    'fetches: expected names that no other callback and no log of a step uses. Received: {} from {}'.format(
                        ', '.join(twice), kind(callback)
                    )
                )
            wanted.update(extra)
        return wanted

    def run(self, hook, *args):
        """Calls one hook of all callbacks; the first failure ends it."""
        for callback in self.callbacks:
            _call(callback, hook, *args)

    def _run_all(self, hook, callbacks, *args):
        for callback in callbacks:
            try:
                _call(callback, hook, *args)
            except Exception as error:  # noqa: BLE001 - every finalizer gets its turn, whatever another one raised
                failure = (
                    str(error)
                    if isinstance(error, HookError)
                    else f'{kind(callback)}.{hook}: {error}'
                )
                log.error(failure)
                self.failures.append(failure)

    def end(self, logs):
        self._run_all('on_train_end', self.callbacks, logs)

    def close(self):
        self._run_all('close', self._built)
        self._built = []

    def _named(self):
        names = [kind(callback) for callback in self.callbacks]
        return zip(
            ('{}{}'.format(name, names[:i].count(name) or '') for i, name in enumerate(names)),
            self.callbacks,
        )

    def state(self):
        """{name: state} of the callbacks that have one."""
        states = ((name, _call(callback, 'state')) for name, callback in self._named())
        return {name: state for name, state in states if state is not None}

    def load_state(self, states):
        for name, callback in self._named():
            if name in states:
                try:
                    callback.load_state(states[name])
                except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
                    raise ValueError(
                        f'expected the state that {name} saved. Received: one that gives {type(error).__name__}: {error}'
                    )
