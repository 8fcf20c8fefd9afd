"""Runs that are killed and started again, and whether they came out as if nobody had touched them.

Shared by test_chaos.py and benchmarks/chaos.py. As a program it is `trainers.run` that notes in a
file what it is doing, or comes to grief as planned:

    python tests/survival.py '{"marks": "FILE"}' --steps=40 ...
"""

import glob
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == '__main__':
    sys.path.insert(0, ROOT)

MOMENTS = ('start-up', 'step', 'measurement', 'checkpoint write', 'end')
SPEED = ('seconds', 'images_per_sec', 'sec_per_step')  # what no two runs agree on
WAIT = 240  # seconds after which a process counts as hung; a toy run takes ten


class Marks:
    """What a run is doing, in a file that both sides map into memory: it outlives a SIGKILL, and
    noting costs no system call.
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
        """How often it was entered."""
        return self._get(1 + MOMENTS.index(moment))

    def enter(self, moment):
        """It is that moment now, once more."""
        self._set(1 + MOMENTS.index(moment), self.count(moment) + 1)
        self.back_to(moment)

    def back_to(self, moment):
        """It is that moment again, which was entered before."""
        self._set(0, MOMENTS.index(moment))

    def noting(self, moment, function):
        """`function` that says while it runs that it is that moment."""

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
    """SIGKILL half way through the manifest of the `number`-th checkpoint this process writes."""
    from trainers.checkpoints import manifest as manifests

    write, written = manifests.write, []

    def dump(manifest, file, **keywords):
        text = json.dumps(manifest, **keywords)
        file.write(text[: len(text) // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(*args):
        written.append(args)
        if len(written) == number:
            json.dump = dump
        return write(*args)

    manifests.write = dying


def _noted(callbacks, marks, sleep_in_step=0):
    """The callbacks of a run between two that note what it is doing; one step may take minutes."""
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
    """One process of a run. `plan` None: the plain command.

    Args:
      flags: the command line.
      folder: where the marks and what is printed are kept.
      plan: what `main` is to do beside training.
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
        """As on a machine where nobody has set PYTHONUNBUFFERED: what is printed must come out all
        the same.
        """
        return dict(
            {name: value for name, value in os.environ.items() if name != 'PYTHONUNBUFFERED'},
            PYTHONPATH=ROOT,
        )

    def wait(self):
        """The exit status; one that hangs is ended, and raises."""
        try:
            return self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f'hung in {self.marks.moment}:\n{self.printed()}')

    def until(self, condition):
        """Waits for `condition()`. False if the process ended before; one that does neither is
        ended, and raises.
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
        """SIGKILL `delay` seconds after `moment` was entered for the `count`-th time. Returns the
        moment it fell in, None if the run was over before."""
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
    """{tag: {step: [values]}} of all event files of a run as TensorBoard would show it: a START
    drops what was there of its step and later ones. What a kill cut off at the end of a file is
    passed over, as there."""
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
    """{name: array} of everything a checkpoint holds."""
    from gitloss.backend import tf

    path = os.path.join(checkpoint.path, 'model')
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name, _ in tf.train.list_variables(path)}


def timeless(value):
    """JSON values without those that depend on how fast the machine was."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in SPEED}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def history(run_dir):
    with open(os.path.join(run_dir, 'history.jsonl'), encoding='utf-8') as file:
        return [json.loads(line) for line in file]


def files(run_dir):
    """Relative names of all files but event files, whose names hold the time."""
    found = [
        os.path.relpath(os.path.join(folder, name), run_dir)
        for folder, _, names in os.walk(run_dir)
        for name in names
    ]
    return {name for name in found if not name.startswith('events.out.tfevents.')}


def differences(run_dir, twin_dir):
    """What a finished run has otherwise than its undisturbed twin: a list of lines, empty if they
    are equal to the last bit.

    Compared are all tensors of the last checkpoint, its manifest, history.jsonl, results.json, the
    scalars of the event files, each of which must be there once, and which files there are. Speeds
    and times count for nothing.
    """
    from trainers import checkpoints

    wrong = []
    one, other = (
        checkpoints.CheckpointStore(os.path.join(path, 'ckpt')).newest()
        for path in (run_dir, twin_dir)
    )
    if one is None or other is None or one.step != other.step:
        return [
            'checkpoints of %s' % [checkpoint and checkpoint.step for checkpoint in (one, other)]
        ]
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
        wrong.append('history.jsonl, steps %s' % [row['step'] for row in rows])
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
