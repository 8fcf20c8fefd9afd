"""The timers of whole_run.py around the parts of a run."""

import collections
import contextlib
import time

HOOKS = (
    'build',
    'fetches',
    'on_train_begin',
    'on_train_batch_begin',
    'on_train_batch_end',
    'on_epoch_begin',
    'on_test_begin',
    'on_epoch_end',
    'on_rewind',
    'on_train_end',
    'close',
    'state',
    'load_state',
)


class Account:
    """Seconds by name; the time of an inner name does not count for the outer one.

    Attributes:
      inside_step: whether the trainer makes a step.
      first_step: the clock at the end of the first step; None before.
      before: the seconds until then.
    """

    def __init__(self):
        self.seconds, self.calls = collections.Counter(), collections.Counter()
        self._inner = [0.0]
        self.inside_step, self.first_step, self.before = False, None, {}

    @contextlib.contextmanager
    def of(self, name):
        start = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] += elapsed - self._inner.pop()
            self.calls[name] += 1
            self._inner[-1] += elapsed

    def around(self, owner, attribute, name):
        function = getattr(owner, attribute)

        def timed(*args, **keywords):
            with self.of(name):
                return function(*args, **keywords)

        setattr(owner, attribute, timed)


def instrument(account, without):
    """Times the parts of the later runs of this process, and removes the named callbacks."""
    from gitloss import data
    from trainers import checkpoints
    from trainers.engine.trainer import Trainer

    account.around(data, 'load', 'load the data')
    for name, label in (
        ('build', 'build the graph'),
        ('initialise', 'start the session'),
        ('train_step', "steps, the trainer's part"),
    ):
        account.around(Trainer, name, label)
    account.around(checkpoints.CheckpointStore, 'save', 'Checkpoint')
    _instrument_callbacks(account, without)
    _instrument_sweeps(account)
    _instrument_steps(account)


def _instrument_callbacks(account, without):
    from trainers import callback_list

    build_callbacks = callback_list.build_callbacks

    def build(*args):
        chosen = [one for one in build_callbacks(*args) if type(one).__name__ not in without]
        for one in chosen:
            for hook in HOOKS:
                account.around(one, hook, type(one).__name__)
        return chosen

    callback_list.build_callbacks = build


def _instrument_sweeps(account):
    from trainers.engine.runtime import Runtime

    sweep = Runtime.sweep

    def timed_sweep(*args, **keywords):
        walk = sweep(*args, **keywords)
        while True:
            with account.of('sweeps'):
                batch = next(walk, None)
            if batch is None:
                return
            yield batch

    Runtime.sweep = timed_sweep


def _instrument_steps(account):
    from trainers.engine.trainer import Trainer

    initialise, step = Trainer.initialise, Trainer.train_step

    def timed_session(trainer):
        initialise(trainer)
        session = trainer.runtime.session
        run = session.run

        def timed(*args, **keywords):
            if not account.inside_step:
                return run(*args, **keywords)
            with account.of('steps, in TensorFlow'):
                return run(*args, **keywords)

        session.run = timed

    def timed_step(trainer):
        account.inside_step = True
        try:
            step(trainer)
        finally:
            account.inside_step = False
        if account.first_step is None:
            account.first_step, account.before = time.monotonic(), dict(account.seconds)

    Trainer.initialise, Trainer.train_step = timed_session, timed_step
