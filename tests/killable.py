"""Runs that can be killed in a chosen moment.

Shared by test_chaos.py and benchmarks/chaos.py. As a program it is `trainers.run` that records its
current phase in a file, or dies as planned:

    python tests/killable.py '{"marks": "FILE"}' --steps=40 ...
"""

import json
import mmap
import os
import pathlib
import signal
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == '__main__':
    sys.path.insert(0, ROOT)

MOMENTS = ('start-up', 'step', 'measurement', 'checkpoint write', 'end')
WAIT = 240  # seconds after which a process counts as hung; a toy run takes ten


class Marks:
    """The current phase of a run ("moment"), in a file that both processes map into memory. It
    survives a SIGKILL, and writing to it costs no system call.
    """

    def __init__(self, path):
        if not os.path.exists(path):
            with open(path, 'wb') as file:
                file.write(bytes(8 * len(MOMENTS) + 8))
        with open(path, 'r+b') as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def _get(self, place):
        return struct.unpack_from('<Q', self._map, 8 * place)[0]

    def _set(self, place, value):
        struct.pack_into('<Q', self._map, 8 * place, value)

    @property
    def moment(self):
        return MOMENTS[self._get(0)]

    def count(self, moment):
        """How often the run entered this moment."""
        return self._get(1 + MOMENTS.index(moment))

    def enter(self, moment):
        """Sets the current moment and counts it."""
        self._set(1 + MOMENTS.index(moment), self.count(moment) + 1)
        self.back_to(moment)

    def back_to(self, moment):
        """Sets the current moment without counting it: the run returns to it."""
        self._set(0, MOMENTS.index(moment))

    def noting(self, moment, function):
        """Wraps `function` so that `moment` is the current one while it runs."""

        def noted(*args, **keywords):
            before = self.moment
            self.enter(moment)
            try:
                return function(*args, **keywords)
            finally:
                self.back_to(before)

        return noted

    def clear(self):
        self._map[:] = bytes(len(self._map))


def _die_in_save(number):
    """Arranges a SIGKILL half way through the manifest of the `number`-th checkpoint of this
    process.
    """
    from trainers.checkpoints import manifest as manifests

    write, written = manifests.write, []

    def write_half(path, text, encoding):
        with open(str(path), 'w', encoding=encoding) as file:
            file.write(text[: len(text) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(*args):
        written.append(args)
        if len(written) == number:
            pathlib.Path.write_text = write_half
        return write(*args)

    manifests.write = dying


def _noted(callbacks, marks, sleep_in_step=0):
    """The callbacks of a run between two that record its moments. Step `sleep_in_step` takes
    minutes.
    """
    from callbacks.base import Callback

    class Before(Callback):
        def on_train_begin(self, logs=None):
            marks.enter('step')

        def on_train_batch_begin(self, batch, logs=None):
            marks.enter('step')
            # Not at once: a signal that comes just before a sleep does not end it.
            for _ in range(10 * WAIT if batch == sleep_in_step else 0):
                time.sleep(0.1)

        def on_test_begin(self, logs=None):
            marks.enter('measurement')

        def on_train_end(self, logs=None):
            marks.enter('end')

    class After(Callback):
        def on_epoch_end(self, epoch, logs=None):
            marks.back_to('step')

    return [Before()] + callbacks + [After()]


def main(arguments):
    from trainers import callback_list, checkpoints, run

    plan = json.loads(arguments[0])
    marks = Marks(plan['marks'])
    if 'die_in_save' in plan:
        _die_in_save(plan['die_in_save'])
    build, store = callback_list.build_callbacks, checkpoints.CheckpointStore
    callback_list.build_callbacks = lambda *args: _noted(
        build(*args), marks, plan.get('sleep_in_step')
    )
    store.save = marks.noting('checkpoint write', store.save)
    return run.main(arguments[1:])


class Run:
    """One process of a run.

    Args:
      flags: the command line.
      folder: folder of the marks and of the output.
      plan: what `main` does besides training; None: the plain command.
      python: the interpreter.
      forked: begin with TensorFlow imported, see forking.py.
    """

    def __init__(self, flags, folder, plan=None, python=sys.executable, forked=False):
        self.marks = Marks(os.path.join(folder, 'marks'))
        self.marks.clear()
        self._printed = os.path.join(folder, 'printed')
        command = (
            ['-m', 'trainers.run']
            if plan is None
            else [
                os.path.join(ROOT, 'tests', 'killable.py'),
                json.dumps(dict(plan, marks=os.path.join(folder, 'marks'))),
            ]
        )
        if forked:
            import forking

            environment = self._environment()
            self.process = forking.Process(command + flags, self._printed, None, environment)
            return
        with open(self._printed, 'wb') as file:
            self.process = subprocess.Popen(
                [python] + command + flags,
                cwd=ROOT,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    @staticmethod
    def _environment():
        """The environment without PYTHONUNBUFFERED: all output must appear without it, too."""
        return dict(
            {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'},
            PYTHONPATH=ROOT,
        )

    def wait(self):
        """The exit status. Kills a process that hangs, and raises AssertionError."""
        try:
            return self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f'hung in {self.marks.moment}:\n{self.printed()}')

    def until(self, condition):
        """Waits for `condition()`. Returns False if the process ends before. Kills a process that
        does neither in time, and raises AssertionError.
        """
        limit = time.monotonic() + WAIT
        while not condition():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > limit:
                self.process.kill()
                self.wait()
                raise AssertionError(
                    f'nothing came of it in {self.marks.moment}:\n{self.printed()}'
                )
            time.sleep(0.0005)
        return True

    def kill(self, moment, count, delay):
        """Sends SIGKILL `delay` seconds after `moment` was entered for the `count`-th time. Returns
        the moment in which the kill fell, None if the run was over before.
        """
        if not self.until(lambda: self.marks.count(moment) >= count or not count):
            self.wait()
            return None
        limit = time.monotonic() + delay
        while time.monotonic() < limit and self.process.poll() is None:
            time.sleep(min(0.001, delay))
        self.process.kill()
        return self.marks.moment if self.wait() == -signal.SIGKILL else None

    def send(self, signum):
        self.process.send_signal(signum)

    def printed(self):
        with open(self._printed, encoding='utf-8', errors='replace') as file:
            return file.read()


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
