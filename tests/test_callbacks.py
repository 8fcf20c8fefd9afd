"""Callbacks without a model: hooks called with made-up values."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from callbacks.base import Callback
from callbacks.history import History
from callbacks.list import CallbackList
from gitloss.backend import tf
from gitloss.errors import Diverged, HookError
from handles import FakeHandle

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Recorder(Callback):
    def __init__(self, calls, name, failing=()):
        self.calls, self.name, self.failing = calls, name, failing

    def _note(self, hook):
        self.calls.append((self.name, hook))
        if hook in self.failing:
            raise RuntimeError(f'{self.name} broke')

    def build(self):
        self._note('build')

    def on_train_begin(self, logs=None):
        self._note('on_train_begin')

    def on_train_end(self, logs=None):
        self._note('on_train_end')

    def close(self):
        self._note('close')


def test_order_is_the_order_of_the_list():
    calls = []
    callbacks = CallbackList([Recorder(calls, 'a'), Recorder(calls, 'b')])
    callbacks.build(FakeHandle())
    callbacks.run('on_train_begin', {})
    callbacks.end({})
    callbacks.close()
    assert calls == [
        (name, hook)
        for hook in ('build', 'on_train_begin', 'on_train_end', 'close')
        for name in 'ab'
    ]
    assert callbacks.failures == []


def test_every_finalizer_runs_even_if_others_failed():
    calls = []
    callbacks = CallbackList(
        [Recorder(calls, 'a', ('on_train_end', 'close')), Recorder(calls, 'b')]
    )
    callbacks.build(FakeHandle())
    callbacks.end({})
    callbacks.close()
    assert calls[2:] == [
        ('a', 'on_train_end'),
        ('b', 'on_train_end'),
        ('a', 'close'),
        ('b', 'close'),
    ]
    assert callbacks.failures == ['Recorder.on_train_end: a broke', 'Recorder.close: a broke']


def test_only_what_was_built_is_closed():
    calls = []
    callbacks = CallbackList(
        [Recorder(calls, 'a'), Recorder(calls, 'b', ('build',)), Recorder(calls, 'c')]
    )
    with pytest.raises(RuntimeError):
        callbacks.build(FakeHandle())
    callbacks.close()
    assert calls[2:] == [('a', 'close'), ('b', 'close')]


def test_two_callbacks_may_not_fetch_under_one_name():
    class Fetching(Callback):
        def fetches(self, step):
            return {'norm': step}

    assert CallbackList([Fetching()]).fetches(3) == {'norm': 3}
    for callbacks, own in (([Fetching(), Fetching()], {}), ([Fetching()], {'norm': 0})):
        with pytest.raises(
            ValueError, match='expected names that no other .* Received: norm from Fetching'
        ):
            CallbackList(callbacks).fetches(3, own)


class Mistaken(Callback):
    def on_epoch_end(self, epoch, logs=None):
        return logs['inter']

    def on_train_end(self, logs=None):
        return self.nothing


def test_a_mistake_in_a_hook_names_callback_hook_and_line():
    line = Mistaken.on_epoch_end.__code__.co_firstlineno + 1
    with pytest.raises(
        HookError,
        match=rf"^Mistaken.on_epoch_end: KeyError: 'inter' \(test_callbacks.py, line {line}\)$",
    ) as caught:
        CallbackList([Mistaken()]).run('on_epoch_end', 1, {})
    assert isinstance(caught.value.__cause__, KeyError)  # --tf_logs shows it
    callbacks = CallbackList([Mistaken()])
    callbacks.end({})
    assert callbacks.failures == [
        "Mistaken.on_train_end: AttributeError: 'Mistaken' object has no attribute 'nothing' "
        f'(test_callbacks.py, line {Mistaken.on_train_end.__code__.co_firstlineno + 1})'
    ]


@pytest.mark.parametrize(
    'error',
    [
        Diverged('a'),
        ValueError('a'),
        OSError('a'),
        RuntimeError('a'),
        MemoryError('a'),
        KeyboardInterrupt('a'),
        tf.errors.AbortedError(None, None, 'a'),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_with_a_meaning_keep_it(error):
    class Raising(Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise error

    with pytest.raises(type(error)) as caught:
        CallbackList([Raising()]).run('on_epoch_end', 1, {})
    assert caught.value is error


def test_numbers_of_numpy_become_numbers_of_python():
    class Scoring(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs.update(
                single=np.float32(0.5), count=np.int64(3), flag=np.bool_(True), array=np.array(2.5)
            )

    logs = {}
    CallbackList([Scoring()]).run('on_epoch_end', 1, logs)
    assert [(name, type(value)) for name, value in logs.items()] == [
        ('single', float),
        ('count', int),
        ('flag', bool),
        ('array', float),
    ]
    assert (
        logs
        == json.loads(json.dumps(logs))
        == {'single': 0.5, 'count': 3, 'flag': True, 'array': 2.5}
    )


def test_what_no_json_holds_names_who_logged_it():
    class Listing(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs['table'] = np.zeros(3)

    with pytest.raises(
        HookError,
        match='^Listing.on_epoch_end: expected numbers or text in the logs. Received: table, of '
        'type ndarray$',
    ):
        CallbackList([Listing(), History()]).run('on_epoch_end', 1, {})


def test_states_of_two_callbacks_of_one_class_stay_apart():
    one, two = History(), History()
    one.rows, two.rows = [{'step': 1}], [{'step': 2}]
    states = json.loads(json.dumps(CallbackList([one, two]).state()))
    again = CallbackList([History(), History()])
    again.load_state(states, 'ckpt/step-00000005')
    assert [callback.rows for callback in again.callbacks] == [[{'step': 1}], [{'step': 2}]]


def test_a_line_for_a_person_is_out_at_once_also_into_a_file():
    """`os._exit`, like a kill, drops what is not flushed: before Python 3.9 that would be all
    lines, except on a terminal.
    """
    code = (
        'import logging, os; from callbacks.progress import ConsoleHandler, log; '
        'log.addHandler(ConsoleHandler()); '
        'log.setLevel(logging.INFO); log.info("step 1"); os._exit(0)'
    )
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'}
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=dict(environment, PYTHONPATH=ROOT),
        stderr=subprocess.PIPE,
        timeout=120,
    )
    assert done.stderr.decode().splitlines() == ['step 1']
