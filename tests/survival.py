"""Runs that are killed and restarted, compared with runs that nobody disturbed.

Shared by test_chaos.py and benchmarks/chaos.py. As a program it is `trainers.run` that records its
current phase in a file, or dies as planned:

    python tests/survival.py '{"marks": "FILE"}' --steps=40 ...
"""

import glob
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
SPEED = ('seconds', 'images_per_sec', 'sec_per_step')  # no two runs agree on these columns
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


# --- the run that is killed -----------------------------------------------------------------------


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
            if batch == sleep_in_step:
                time.sleep(WAIT)

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


# --- starting and killing -------------------------------------------------------------------------


class Run:
    """One process of a run.

    Args:
      flags: the command line.
      folder: folder of the marks and of the output.
      plan: what `main` does besides training; None: the plain command.
      python: the interpreter.
    """

    def __init__(self, flags, folder, plan=None, python=sys.executable):
        self.marks = Marks(os.path.join(folder, 'marks'))
        self.marks.clear()
        self._printed = os.path.join(folder, 'printed')
        command = (
            ['-m', 'trainers.run']
            if plan is None
            else [
                os.path.join(ROOT, 'tests', 'survival.py'),
                json.dumps(dict(plan, marks=os.path.join(folder, 'marks'))),
            ]
        )
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


# --- looking at what is left ----------------------------------------------------------------------


def scalars(run_dir):
    """{tag: {step: [values]}} of all event files of a run, as TensorBoard shows them: a START event
    drops earlier values of its step and of later ones, and a truncated record at the end of a file
    is ignored.
    """
    from gitloss.backend import tf

    found = {}
    for path in sorted(glob.glob(os.path.join(run_dir, 'events.out.tfevents.*'))):
        try:
            for event in tf.train.summary_iterator(path):
                if event.session_log.status == tf.SessionLog.START:
                    for steps in found.values():
                        for step in [step for step in steps if step >= event.step]:
                            del steps[step]
                for value in event.summary.value:
                    if value.HasField('simple_value'):
                        found.setdefault(value.tag, {}).setdefault(event.step, []).append(
                            value.simple_value
                        )
        except tf.errors.DataLossError:
            pass
    return {tag: steps for tag, steps in found.items() if steps}


def tensors(checkpoint):
    """{name: array} of all tensors in a checkpoint."""
    from gitloss.backend import tf

    path = os.path.join(checkpoint.path, 'model')
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name, _ in tf.train.list_variables(path)}


def timeless(value):
    """JSON values without those that depend on the speed of the machine."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in SPEED}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def history(run_dir):
    with open(os.path.join(run_dir, 'history.jsonl'), encoding='utf-8') as file:
        return [json.loads(line) for line in file]


def files(run_dir):
    """Relative paths of all files except event files, whose names contain the time."""
    found = [
        os.path.relpath(os.path.join(folder, name), run_dir)
        for folder, _, names in os.walk(run_dir)
        for name in names
    ]
    return {name for name in found if not name.startswith('events.out.tfevents.')}


def differences(run_dir, twin_dir):
    """How a finished run differs from its undisturbed twin: a list of lines, empty if they are
    equal to the last bit.

    Compares all tensors of the last checkpoint, its manifest, history.jsonl, results.json, the
    scalars of the event files, each of which must occur exactly once, and the list of files. Speeds
    and times are ignored.
    """
    from trainers import checkpoints

    wrong = []
    one, other = (
        checkpoints.CheckpointStore(os.path.join(path, 'ckpt')).newest()
        for path in (run_dir, twin_dir)
    )
    if one is None or other is None or one.step != other.step:
        return [f'checkpoints of {[checkpoint and checkpoint.step for checkpoint in (one, other)]}']
    mine, its = (
        {
            name: (str(value.dtype), value.shape, value.tobytes())
            for name, value in tensors(checkpoint).items()
        }
        for checkpoint in (one, other)
    )
    wrong += [
        f'tensor {name}' for name in sorted(set(mine) | set(its)) if mine.get(name) != its.get(name)
    ]
    wrong += [
        f'manifest, {name}'
        for name in ('epoch', 'metrics', 'logs', 'totals', 'dataset', 'callbacks')
        if timeless(one.manifest[name]) != timeless(other.manifest[name])
    ]
    rows = history(run_dir)
    if len({row['step'] for row in rows}) != len(rows) or timeless(rows) != timeless(
        history(twin_dir)
    ):
        wrong.append(f'history.jsonl, steps {[row["step"] for row in rows]}')
    results = []
    for path in (run_dir, twin_dir):
        with open(os.path.join(path, 'results.json'), encoding='utf-8') as file:
            found = json.load(file)
        results.append(timeless([found['final'], found['best']]))
    if results[0] != results[1]:
        wrong.append('results.json')
    mine, its = scalars(run_dir), scalars(twin_dir)
    wrong += [
        f'scalar {tag} at step {step}, {len(values)} times'
        for tag, steps in sorted(mine.items())
        for step, values in sorted(steps.items())
        if len(values) != 1
    ]
    wrong += [
        f'scalar {tag}'
        for tag in sorted(set(mine) | set(its))
        if sorted(mine.get(tag, {})) != sorted(its.get(tag, {}))
        or (tag.split('/')[-1] not in SPEED and mine[tag] != its[tag])
    ]
    wrong += [f'file {name}' for name in sorted(files(run_dir) ^ files(twin_dir))]
    return wrong


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
